"""LFM2 and LFM2.5: short convolutions, and attention in some layers.

llama.cpp: src/models/lfm2.cpp, src/models/lfm2moe.cpp; a layer without key-value heads is one with
a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule, Traits
from mofa_gguf.convert.families.decoder import EMBEDDINGS, HEAD, Decoder
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.layer_types import layer_types
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, norm, without_channels
from mofa_gguf.convert.families.routed import DENSE, ROUTED, SIGMOID, of_kind, router
from mofa_gguf.convert.metadata import Metadata

_ATTENTION, _MLP = f"{LAYER}.self_attn", f"{LAYER}.feed_forward"
_CONVOLUTION, _FULL = "conv", "full_attention"


_LAYERS = (
    *EMBEDDINGS,
    *norm(f"{LAYER}.operator_norm", "blk.{i}.attn_norm"),
    *of_kind(
        _FULL,
        *attention(output="out_proj"),
        *norm(f"{_ATTENTION}.q_layernorm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{_ATTENTION}.k_layernorm", "blk.{i}.attn_k_norm", "head_dim"),
    ),
    *of_kind(
        _CONVOLUTION,
        matrix(f"{LAYER}.conv.in_proj", "blk.{i}.shortconv.in_proj", "embd_thrice", "embd"),
        matrix(f"{LAYER}.conv.out_proj", "blk.{i}.shortconv.out_proj", "embd", "embd"),
        Rule(
            f"{LAYER}.conv.conv.weight",
            "blk.{i}.shortconv.conv.weight",
            ("embd", "one", "kernel"),
            without_channels,
        ),
    ),
    *norm(f"{LAYER}.ffn_norm", "blk.{i}.ffn_norm"),
)
_DENSE_MLP = (
    matrix(f"{_MLP}.w1", "blk.{i}.ffn_gate", "ff", "embd"),
    matrix(f"{_MLP}.w3", "blk.{i}.ffn_up", "ff", "embd"),
    matrix(f"{_MLP}.w2", "blk.{i}.ffn_down", "embd", "ff"),
)
_OUTPUT = (
    *norm("model.embedding_norm", "token_embd_norm"),
    Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
)


class _Lfm2(Decoder):
    """What both have."""

    epsilon_names = ("norm_eps",)
    default_epsilon = 1e-5
    head_dim_is_width_by_heads = tied_by_default = True
    renamed: ClassVar[Mapping[str, str]] = {"tie_embedding": "tie_word_embeddings"}
    fixed: ClassVar[Mapping[str, object]] = {"conv_bias": False}
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 128_000,
        "num_key_value_heads": 8,
        "rope_theta": 1_000_000.0,
    }

    def dimensions(self) -> Dimensions:
        """The decoder's, and those of the convolutions."""
        sizes = super().dimensions()
        # llama.cpp ends the process for kernels of one.
        kernel = self.config.integer("conv_L_cache", default=3, minimum=2, maximum=64)
        return {**sizes, "embd_thrice": 3 * sizes["embd"], "one": 1, "kernel": kernel}

    def _layers(self, n_layers: int) -> list[str]:
        """For every layer what it is."""
        default = [_FULL] * n_layers
        indices = self.config.values.get("full_attn_idxs")
        if isinstance(indices, list):
            default = [_FULL if i in indices else _CONVOLUTION for i in range(n_layers)]
        return layer_types(self.config, "layer_types", n_layers, (_CONVOLUTION, _FULL), default)

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether a layer attends."""
        if layer is None:
            return ()
        return (self._layers(self.config.integer("num_hidden_layers"))[layer],)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, the convolutions' length, and no heads in their layers."""
        super().hyperparameters(metadata, dimensions)
        layers = self._layers(dimensions["layers"])
        if _CONVOLUTION not in layers or _FULL not in layers:
            raise self.config.fail(
                "layer_types", f"must hold {_CONVOLUTION} and {_FULL} for llama.cpp"
            )
        heads = [dimensions["kv_heads"] if kind == _FULL else 0 for kind in layers]
        metadata.int32s(self.key("attention.head_count_kv"), heads)
        metadata.uint32(self.key("shortconv.l_cache"), dimensions["kernel"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])

    def traits(self, dimensions: Dimensions) -> Traits:
        """llama.cpp counts the query heads a key-value head in the first layer."""
        traits = super().traits(dimensions)
        return (
            traits if self._layers(dimensions["layers"])[0] == _FULL else replace(traits, n_gqa=0)
        )


@register("Lfm2ForCausalLM", "LFM2ForCausalLM")
class Lfm2(_Lfm2):
    """Dense; the feed-forward's width comes out of several values."""

    architecture = "lfm2"
    rules = (*_LAYERS, *_DENSE_MLP, *_OUTPUT)

    def inner_width(self, embd: int) -> int:
        """As transformers computes it."""
        config = self.config
        width = config.integer("block_ff_dim", "intermediate_size", default=12_288)
        if config.boolean("block_auto_adjust_ff_dim", default=True):
            width = int(2 * width / 3)
            if config.values.get("block_ffn_dim_multiplier", 1.0) is not None:
                factor = config.number("block_ffn_dim_multiplier", default=1.0, minimum=1e-3)
                step = config.integer("block_multiple_of", default=256)
                width = step * -(-int(factor * width) // step)
        if not 1 <= width <= MAX_WIDTH:
            raise config.fail("intermediate_size", f"makes the feed-forward {width} wide")
        return width


@register("Lfm2MoeForCausalLM")
class Lfm2Moe(ExpertDecoder, _Lfm2):
    """Experts in all but the first layers."""

    architecture = "lfm2moe"
    fused_name = f"{_MLP}.experts.gate_up_proj"
    defaults: ClassVar[Mapping[str, object]] = {
        **_Lfm2.defaults,
        "moe_intermediate_size": 1792,
        "num_experts": 32,
        "num_experts_per_tok": 4,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        **_Lfm2.fixed,
        "norm_topk_prob": True,
        "use_expert_bias": True,
        "routed_scaling_factor": 1.0,
    }
    rules = (
        *_LAYERS,
        *of_kind(DENSE, *_DENSE_MLP),
        *router(f"{_MLP}.gate", f"{_MLP}.expert_bias", demanded=True),
        *single_experts(_MLP, "w1", "w3", "w2"),
        *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
        *_OUTPUT,
    )

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether a layer attends, and what follows."""
        if layer is not None and layer < self._n_dense:
            return (DENSE, *_Lfm2.kinds(self, layer))
        return (ROUTED, *super().kinds(layer))

    @property
    def _n_dense(self) -> int:
        n_layers = self.config.integer("num_hidden_layers")
        return self.config.integer("num_dense_layers", default=2, minimum=0, maximum=n_layers)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys above and those of the routing."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("leading_dense_block_count"), self._n_dense)
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        metadata.uint32(self.key("expert_gating_func"), SIGMOID)
