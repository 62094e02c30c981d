"""EuroBERT, a Llama that attends to both sides. llama.cpp: src/models/eurobert.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import attention, norm
from mofa_gguf.convert.metadata import Metadata


@register("EuroBertModel", "EuroBertForMaskedLM")
class EuroBert(Decoder):
    """An encoder by its mask alone."""

    architecture = "eurobert"
    default_epsilon = 1e-5
    head_dim_is_width_by_heads = True
    defaults: ClassVar[Mapping[str, object]] = {"max_position_embeddings": 8192}
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False, "mlp_bias": False}
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *GATED_MLP,
        *norm("model.norm", "output_norm"),
    )
    skip: ClassVar[Mapping[str, str]] = {
        **Decoder.skip,
        "lm_head.*": "the head of pre-training is no part of an embedding",
    }

    @property
    def _only_embeds(self) -> bool:
        """Whatever the class."""
        return True

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """A decoder's keys, and that it is none."""
        super().hyperparameters(metadata, dimensions)
        if "rope_theta" not in self.config and "rope_theta" not in self.rope.settings:
            # transformers assumes 10,000, and the published models have 250,000.
            raise self.config.fail("rope_theta", "is missing, and there is no one default for it")
        metadata.boolean(self.key("attention.causal"), False)
