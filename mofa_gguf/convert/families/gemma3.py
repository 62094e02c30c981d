"""Gemma 3, and the text part of its multimodal checkpoints. llama.cpp: src/models/gemma3.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.config import Config
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, Decoder
from mofa_gguf.convert.families.gemma import GEMMA_FIXED, offset_norms
from mofa_gguf.convert.families.gemma2 import FOUR_NORMS, WindowedGemma
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.families.rope import Rope, read_rope
from mofa_gguf.convert.families.text_part import TextPart
from mofa_gguf.convert.metadata import Metadata


def local_theta(config: Config) -> float:
    """The base of the frequencies in layers with a window."""
    # Before transformers 5 the settings were not kept by the kind of layer.
    base = config.number("rope_local_base_freq", default=10_000.0, minimum=1e-6)
    by_kind = config.section("rope_parameters")
    sliding = by_kind.section("sliding_attention") if by_kind is not None else None
    if sliding is None:
        return base
    if sliding.string("rope_type", default="default") != "default":
        raise sliding.fail("rope_type", "must be default for llama.cpp")
    return sliding.number("rope_theta", default=base, minimum=1e-6)


def refuse_attention_factor(family: Decoder, metadata: Metadata) -> None:
    """Raises CheckpointError for a factor that the layers with a window must not have.

    YaRN's own factor llama.cpp leaves out where nothing is stretched; any other it takes for all.
    """
    factor = metadata.get(family.key("rope.scaling.attn_factor"))
    if factor is not None and family.rope.kind == "yarn":
        raise family.config.fail(
            "rope_parameters",
            "ask for an attention factor other than yarn's own, which llama.cpp would apply to "
            "the layers with a window too",
        )


@register("Gemma3ForCausalLM")
class Gemma3(WindowedGemma):
    """Norms of queries and keys; layers with a window have a rope of their own."""

    architecture = "gemma3"
    defaults: ClassVar[Mapping[str, object]] = {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
        "rope_theta": 1_000_000.0,
    }
    fixed: ClassVar[Mapping[str, object]] = {**GEMMA_FIXED, "attn_logit_softcapping": None}
    period = 6
    layers_of_27b = 62
    rules = offset_norms(
        *EMBEDDINGS,
        *FOUR_NORMS,
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
        *GATED_MLP,
        *OUTPUT,
    )

    @property
    def rope(self) -> Rope:
        """The settings of the layers that attend to all tokens."""
        return read_rope(self.config, self.n_context, layers="full_attention")

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of windowed Gemmas, the other rope and the cap."""
        super().hyperparameters(metadata, dimensions)
        metadata.float32(self.key("rope.freq_base_swa"), local_theta(self.config))
        refuse_attention_factor(self, metadata)
        cap = self.config.number("final_logit_softcapping", default=0.0, minimum=0.0)
        if cap:
            metadata.float32(self.key("final_logit_softcapping"), cap)


@register("Gemma3ForConditionalGeneration")
class MultimodalGemma3(TextPart, Gemma3):
    """The language model of a checkpoint that sees too; transformers caps no logits of it."""

    fixed: ClassVar[Mapping[str, object]] = {**Gemma3.fixed, "final_logit_softcapping": None}
