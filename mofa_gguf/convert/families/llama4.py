"""Llama 4, text only. llama.cpp: src/models/llama4.cpp; both rotate neighbours.

llama.cpp has the chunks of 8192 tokens, the layers without positions and the temperature of their
queries built in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.experts import TRANSPOSED, ExpertDecoder, transposed_experts
from mofa_gguf.convert.families.parts import LAYER, attention, matrix
from mofa_gguf.convert.families.routed import (
    DENSE,
    ROUTED,
    dense_mlp,
    of_kind,
    shared_experts,
)
from mofa_gguf.convert.families.text_part import TextPart
from mofa_gguf.convert.metadata import Metadata

_MLP = f"{LAYER}.feed_forward"
_STEP = 4  # of four layers one has no positions
_CHUNK = 8192
_EXPERTS_WITHOUT_NORMS = 128
"""llama.cpp takes the model with so many experts for the one whose queries are not normalized."""
_TEMPERATURE: Mapping[str, float] = {"floor_scale": 8192, "attn_scale": 0.1}


@register("Llama4ForCausalLM")
class Llama4(ExpertDecoder):
    """Experts in every layer or every so many; one expert serves every token."""

    architecture = "llama4"
    takes_frequency_factors = True
    default_epsilon = 1e-5
    width_keys = ("intermediate_size",)
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 128,
        "interleave_moe_layer_step": 1,
        "intermediate_size_mlp": 16_384,
        "max_position_embeddings": 131_072,
        "num_experts_per_tok": 1,
        "num_key_value_heads": 8,
        "num_local_experts": 16,
        "rope_theta": 500_000.0,
    }
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *dense_mlp(_MLP),
        *of_kind(ROUTED, matrix(f"{_MLP}.router", "blk.{i}.ffn_gate_inp", "experts", "embd")),
        *transposed_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
        *shared_experts(f"{_MLP}.shared_expert"),
        *OUTPUT,
    )

    def dimensions(self) -> Dimensions:
        """The dense layers' width has a name of its own."""
        sizes = super().dimensions()
        width = self.config.integer("intermediate_size_mlp", maximum=MAX_WIDTH)
        return {**sizes, "ff": width, "shared": sizes["ff_exp"]}

    @property
    def _step(self) -> int:
        return self.config.integer("interleave_moe_layer_step", maximum=512)

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """What follows the attention."""
        if layer is not None and (layer + 1) % self._step:
            return (DENSE,)
        return (ROUTED, TRANSPOSED)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of experts, and which layers have them."""
        super().hyperparameters(metadata, dimensions)
        self._check_layers(dimensions["layers"])
        normed = self.config.boolean("use_qk_norm", default=True)
        if normed == (dimensions["experts"] == _EXPERTS_WITHOUT_NORMS):
            raise self.config.fail(
                "use_qk_norm",
                f"must be {str(not normed).lower()} for llama.cpp with "
                f"{dimensions['experts']} experts",
            )
        self._warn_of_temperature()
        metadata.uint32(self.key("interleave_moe_layer_step"), self._step)
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])

    def _check_layers(self, n_layers: int) -> None:
        """Raises CheckpointError for other layers than llama.cpp has built in."""
        if n_layers < _STEP:
            # Without a layer that attends to all, llama.cpp ends the process.
            raise self.config.fail("num_hidden_layers", f"must be at least {_STEP} for llama.cpp")
        rotated = [int((i + 1) % _STEP != 0) for i in range(n_layers)]
        expected: dict[str, list[object]] = {
            "no_rope_layers": [*rotated],
            "layer_types": [
                "chunked_attention" if position else "full_attention" for position in rotated
            ],
            "moe_layers": [*range(self._step - 1, n_layers, self._step)],
        }
        for name, values in expected.items():
            found = self.config.values.get(name)
            # transformers takes an empty list for none.
            if found and found != values:
                raise self.config.fail(name, f"must be {values} for llama.cpp")
        chunk = self.config.integer("attention_chunk_size", default=_CHUNK)
        if chunk != _CHUNK and min(chunk, _CHUNK) < self.n_context:
            raise self.config.fail("attention_chunk_size", f"must be {_CHUNK} for llama.cpp")

    def _warn_of_temperature(self) -> None:
        """Tell where llama.cpp scales the queries of long texts otherwise.

        Raises CheckpointError where it is not only those of long texts.
        """
        # Published configurations have numbers here, which mean true.
        tuned = bool(self.config.values.get("attn_temperature_tuning", True))
        scales = {
            name: self.config.number(name, default=_TEMPERATURE[name]) for name in _TEMPERATURE
        }
        if tuned and scales["floor_scale"] < min(_CHUNK, self.n_context):
            raise self.config.fail("floor_scale", f"must be {_CHUNK} for llama.cpp")
        if self.n_context > _CHUNK and not (tuned and scales == _TEMPERATURE):
            self.warnings.append(
                f"llama.cpp scales the queries from token {_CHUNK} on in its own way: longer texts "
                "will come out differently"
            )


@register("Llama4ForConditionalGeneration")
class MultimodalLlama4(TextPart, Llama4):
    """The language model of a checkpoint that sees too."""
