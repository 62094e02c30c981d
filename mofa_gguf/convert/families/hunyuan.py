"""Hunyuan, dense and with experts. llama.cpp: src/models/hunyuan-dense.cpp, hunyuan-moe.cpp.

Both normalize queries and keys after they were rotated. A rope that the configuration calls
dynamic and gives an ``alpha`` has another base, whatever the text's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, norm
from mofa_gguf.convert.families.rope import Rope, read_rope
from mofa_gguf.convert.metadata import Metadata

_MLP = f"{LAYER}.mlp"
_LONGEST = 2**18
"""Tokens that models with an alpha were trained for: config.json says fewer (their reports)."""
_LAYERS = (
    *EMBEDDINGS,
    *TWO_NORMS,
    *attention(),
    *norm(f"{LAYER}.self_attn.query_layernorm", "blk.{i}.attn_q_norm", "head_dim"),
    *norm(f"{LAYER}.self_attn.key_layernorm", "blk.{i}.attn_k_norm", "head_dim"),
    *OUTPUT,
)


class _Hunyuan(Decoder):
    """What both have."""

    default_epsilon = 1e-5
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False, "use_qk_norm": True}

    @property
    def _stored_rope(self) -> Rope:
        return read_rope(self.config, self.config.integer("max_position_embeddings", default=2048))

    @property
    def _alpha(self) -> float:
        rope = self._stored_rope
        if rope.kind != "dynamic":
            return 0.0
        return rope.settings.number("alpha", default=0.0, minimum=0.0)

    @property
    def rope(self) -> Rope:
        """With the base that the alpha makes."""
        rope, alpha = self._stored_rope, self._alpha
        if not alpha:
            return rope
        heads = self.config.integer("num_attention_heads")
        width = self.config.integer("hidden_size") // heads
        size = self.config.integer("head_dim", default=width, minimum=4)
        theta = rope.theta * alpha ** (size / (size - 2))
        return replace(rope, kind="default", theta=theta)

    @property
    def n_context(self) -> int:
        """Tokens that the model was trained for."""
        own = self.config.integer("max_position_embeddings", default=2048)
        return max(own, _LONGEST) if self._alpha else own


@register("HunYuanDenseV1ForCausalLM")
class HunyuanDense(_Hunyuan):
    """Hunyuan 0.5B to 7B, and translators made of it."""

    architecture = "hunyuan-dense"
    rules = (*_LAYERS, *GATED_MLP)


_LISTS = ("moe_topk", "moe_intermediate_size", "num_experts", "num_shared_expert")


@register("HunYuanMoEV1ForCausalLM")
class HunyuanMoe(ExpertDecoder, _Hunyuan):
    """Hunyuan-A13B: experts in every layer, and one for every token."""

    architecture = "hunyuan-moe"
    width_keys = ("intermediate_size",)
    renamed: ClassVar[Mapping[str, str]] = {"moe_topk": "num_experts_per_tok"}
    fixed: ClassVar[Mapping[str, object]] = {
        **_Hunyuan.fixed,
        "num_shared_expert": 1,
        "use_cla": False,
    }
    rules = (
        *_LAYERS,
        matrix(f"{_MLP}.gate.wg", "blk.{i}.ffn_gate_inp", "experts", "embd"),
        *single_experts(_MLP),
        *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
        matrix(f"{_MLP}.shared_mlp.gate_proj", "blk.{i}.ffn_gate_shexp", "ff", "embd"),
        matrix(f"{_MLP}.shared_mlp.up_proj", "blk.{i}.ffn_up_shexp", "ff", "embd"),
        matrix(f"{_MLP}.shared_mlp.down_proj", "blk.{i}.ffn_down_shexp", "embd", "ff"),
    )

    def __init__(self, checkpoint: Checkpoint, source_architecture: str) -> None:
        """Published files have lists of one number a layer, all the same."""
        super().__init__(checkpoint, source_architecture)
        values = dict(self.config.values)
        for name in (*_LISTS, "num_experts_per_tok"):
            found = values.get(name)
            if isinstance(found, list):
                if not found or any(item != found[0] for item in found):
                    raise self.config.fail(name, "must be one number for all layers, for llama.cpp")
                values[name] = found[0]
        self.config.values = values

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of experts; all of them are as wide."""
        super().hyperparameters(metadata, dimensions)
        width = dimensions["ff"]
        if self.config.integer("moe_intermediate_size", default=width) != width:
            raise self.config.fail("moe_intermediate_size", f"must be {width} for llama.cpp")
        metadata.uint32(self.key("expert_feed_forward_length"), width)
        metadata.uint32(self.key("expert_shared_feed_forward_length"), width)
        metadata.uint32(self.key("expert_shared_count"), 1)
