"""Gemma 3n, text only. llama.cpp: src/models/gemma3n.cpp.

llama.cpp has the sizes of the additional parts built in, and which layers are sparse and which take
keys and values from earlier ones. The norms hold the factor itself.

Where a layer is sparse, llama.cpp divides the variance of its ``n`` gates by ``n - 1`` and
transformers by ``n``: nothing for the 8,192 and more of the released models, but tiny models with
tens of them come out differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, NamedWeights, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, Decoder
from mofa_gguf.convert.families.gemma2 import FOUR_NORMS
from mofa_gguf.convert.families.gemma3 import local_theta, refuse_attention_factor
from mofa_gguf.convert.families.parts import LAYER, matrix, norm
from mofa_gguf.convert.families.rope import Rope, read_rope
from mofa_gguf.convert.families.routed import of_kind
from mofa_gguf.convert.families.text_part import TextPart
from mofa_gguf.convert.families.windows import sliding_layers
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Rows, Weights, computed

_ALTUP, _LAUREL, _ATTENTION = f"{LAYER}.altup", f"{LAYER}.laurel", f"{LAYER}.self_attn"
_PERIOD = 5
_LAYERS_WITH_KEYS, _SPARSE_LAYERS, _SPARSITY = 20, 10, 0.95
# What llama.cpp has built in.
_INPUTS, _LAYER_INPUT, _RANK, _CAP = 4, 256, 64, 30.0


_OWN, _SHARED = "keys of its own", "keys of an earlier layer"
_KEYS = (
    matrix(f"{_ATTENTION}.k_proj", "blk.{i}.attn_k", "kv", "embd"),
    matrix(f"{_ATTENTION}.v_proj", "blk.{i}.attn_v", "kv", "embd"),
    *norm(f"{_ATTENTION}.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
)
"""llama.cpp asks for them in every layer, and leaves them alone where keys are shared."""


def _for_all_tokens(weights: Weights, dimensions: Dimensions) -> Weights:
    """Tokens for pictures and sounds have no row; transformers takes the first for them."""
    n_own, n_all = weights.n_rows, dimensions["vocab"]

    def read(start: int, stop: int) -> Rows:
        own = weights.read(min(start, n_own), min(stop, n_own))
        n_more = stop - max(start, n_own)
        if n_more <= 0:
            return own
        return np.concatenate([own, np.repeat(weights.read(0, 1), n_more, axis=0)])

    return replace(weights, shape=(n_all, weights.row_length), read=read)


@register("Gemma3nForCausalLM")
class Gemma3n(Decoder):
    """Four streams of which one is computed, and an embedding of each token for each layer."""

    architecture = "gemma3n"
    tied_by_default = True
    activations = ("gelu_pytorch_tanh", "gelu_new")
    activation_names = ("hidden_activation", "hidden_act")
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 2,
        "rope_theta": 1_000_000.0,
        "sliding_window": 512,
        "vocab_size": 262_400,
        "vocab_size_per_layer_input": 262_144,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        "altup_active_idx": 0,
        "altup_correct_scale": True,
        "altup_num_inputs": _INPUTS,
        "attention_bias": False,
        "final_logit_softcapping": _CAP,
        "hidden_size_per_layer_input": _LAYER_INPUT,
        "laurel_rank": _RANK,
        "use_bidirectional_attention": False,
    }
    rules = (
        *EMBEDDINGS,
        Rule(
            "model.embed_tokens_per_layer.weight",
            "per_layer_token_embd.weight",
            ("own_vocab", "all_layers_input"),
            _for_all_tokens,
        ),
        matrix(
            "model.per_layer_model_projection", "per_layer_model_proj", "all_layers_input", "embd"
        ),
        *norm("model.per_layer_projection_norm", "per_layer_proj_norm", "layer_input"),
        Rule(
            "model.altup_projections.{e}.weight",
            "altup_proj.weight",
            ("embd", "embd"),
            stack="other_inputs",
        ),
        Rule(
            "model.altup_unembed_projections.{e}.weight",
            "altup_unembd_proj.weight",
            ("embd", "embd"),
            stack="other_inputs",
        ),
        *FOUR_NORMS,
        matrix(f"{_ATTENTION}.q_proj", "blk.{i}.attn_q", "q", "embd"),
        *of_kind(_OWN, *_KEYS),
        *of_kind(_SHARED, *(replace(rule, optional=True) for rule in _KEYS)),
        matrix(f"{_ATTENTION}.o_proj", "blk.{i}.attn_output", "embd", "q"),
        *norm(f"{_ATTENTION}.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *GATED_MLP,
        matrix(f"{LAYER}.per_layer_input_gate", "blk.{i}.inp_gate", "layer_input", "embd"),
        matrix(f"{LAYER}.per_layer_projection", "blk.{i}.proj", "embd", "layer_input"),
        *norm(f"{LAYER}.post_per_layer_input_norm", "blk.{i}.post_norm"),
        matrix(f"{_ALTUP}.correction_coefs", "blk.{i}.altup_correct_coef", "inputs", "inputs"),
        Rule(f"{_ALTUP}.correct_output_scale", "blk.{i}.altup_correct_scale.weight", ("embd",)),
        matrix(
            f"{_ALTUP}.prediction_coefs", "blk.{i}.altup_predict_coef", "inputs_squared", "inputs"
        ),
        matrix(f"{_ALTUP}.modality_router", "blk.{i}.altup_router", "inputs", "embd"),
        *norm(f"{_ALTUP}.router_norm", "blk.{i}.altup_router_norm"),
        matrix(f"{_LAUREL}.linear_left", "blk.{i}.laurel_l", "rank", "embd"),
        matrix(f"{_LAUREL}.linear_right", "blk.{i}.laurel_r", "embd", "rank"),
        *norm(f"{_LAUREL}.post_laurel_norm", "blk.{i}.laurel_post_norm"),
        *OUTPUT,
    )

    def inner_width(self, embd: int) -> int:
        """One number, or a list of the same one for each layer."""
        found = self.config.values.get("intermediate_size")
        if isinstance(found, list) and found and all(width == found[0] for width in found):
            self.config.values = {**self.config.values, "intermediate_size": found[0]}
        return super().inner_width(embd)

    def dimensions(self) -> Dimensions:
        """The decoder's, and what llama.cpp has built in."""
        sizes = super().dimensions()
        vocab = sizes["vocab"]
        return {
            **sizes,
            "own_vocab": self.config.integer("vocab_size_per_layer_input", maximum=vocab),
            "layer_input": _LAYER_INPUT,
            "all_layers_input": sizes["layers"] * _LAYER_INPUT,
            "inputs": _INPUTS,
            "inputs_squared": _INPUTS**2,
            "other_inputs": _INPUTS - 1,
            "rank": _RANK,
        }

    @property
    def rope(self) -> Rope:
        """The settings of the layers that attend to all tokens."""
        return read_rope(self.config, self.n_context, layers="full_attention")

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether a layer has keys and values of its own."""
        if layer is None:
            return ()
        return (_OWN,) if layer < _LAYERS_WITH_KEYS else (_SHARED,)

    def extra_tensors(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """Zeros for what llama.cpp demands and does not use, where the checkpoint leaves it out."""
        yield from super().extra_tensors(dimensions)
        stored = {self.canonical(name) for name in self.checkpoint.tensors}
        for i in range(_LAYERS_WITH_KEYS, dimensions["layers"]):
            for rule in _KEYS:
                if rule.source.format(i=i) not in stored:
                    zeros = np.zeros([dimensions[size] for size in rule.shape], dtype=np.float32)
                    yield NamedWeights(rule.target.format(i=i), computed(zeros))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and the windows'."""
        super().hyperparameters(metadata, dimensions)
        n_layers = dimensions["layers"]
        self._check_layers(n_layers)
        layers = sliding_layers(self.config, n_layers, period=_PERIOD)
        shared = max(0, n_layers - _LAYERS_WITH_KEYS)
        if shared and layers[_LAYERS_WITH_KEYS - 2 : _LAYERS_WITH_KEYS] != [True, False]:
            raise self.config.fail("layer_types", "must end the layers with keys as llama.cpp does")
        metadata.float32(self.key("rope.freq_base_swa"), local_theta(self.config))
        refuse_attention_factor(self, metadata)
        metadata.uint32(self.key("attention.sliding_window"), self.config.integer("sliding_window"))
        metadata.booleans(self.key("attention.sliding_window_pattern"), layers)
        metadata.uint32(self.key("attention.shared_kv_layers"), shared)
        metadata.float32(self.key("final_logit_softcapping"), _CAP)
        metadata.uint32(self.key("altup.active_idx"), 0)
        metadata.uint32(self.key("altup.num_inputs"), _INPUTS)
        metadata.uint32(self.key("embedding_length_per_layer_input"), _LAYER_INPUT)

    def _check_layers(self, n_layers: int) -> None:
        """Raises CheckpointError for other layers than llama.cpp has built in."""
        shared = self.config.integer("num_kv_shared_layers", default=15, minimum=0)
        if shared != max(0, n_layers - _LAYERS_WITH_KEYS):
            raise self.config.fail(
                "num_kv_shared_layers", f"must leave {_LAYERS_WITH_KEYS} layers for llama.cpp"
            )
        expected = [_SPARSITY if i < _SPARSE_LAYERS else 0.0 for i in range(n_layers)]
        default = expected if n_layers > _SPARSE_LAYERS else [0.0] * n_layers
        found: Any = self.config.values.get("activation_sparsity_pattern")
        if (default if found is None else found) != expected:
            raise self.config.fail(
                "activation_sparsity_pattern",
                f"must be {_SPARSITY} for the first {_SPARSE_LAYERS} layers for llama.cpp",
            )
        # Absent means the default, null no cap.
        if self.config.values.get("final_logit_softcapping", 0) is None:
            raise self.config.fail("final_logit_softcapping", f"must be {_CAP} for llama.cpp")


@register("Gemma3nForConditionalGeneration")
class MultimodalGemma3n(TextPart, Gemma3n):
    """The language model of a checkpoint that sees and hears too."""
