"""RoBERTa encoders: all-distilroberta, BGE-M3, multilingual E5 and their kind.

llama.cpp takes them for BERT (src/models/bert.cpp). Their position numbers begin behind the
padding token's id, llama.cpp's at 0: the rows before the first used one are cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.bert import Bert
from mofa_gguf.convert.weights import Weights, rows_of_each

_POSITIONS = "embeddings.position_embeddings.weight"


def _used_positions(weights: Weights, dimensions: Dimensions) -> Weights:
    n_stored = weights.shape[0]
    return rows_of_each(weights, np.arange(n_stored - dimensions["positions"], n_stored))


@register(
    "RobertaModel",
    "RobertaForMaskedLM",
    "XLMRobertaModel",
    "XLMRobertaForMaskedLM",
    "CamembertModel",
)
class Roberta(Bert):
    """BERT with other position numbers, and usually with one token type."""

    prefixes = ("roberta.",)
    rules = (
        Rule(_POSITIONS, "position_embd.weight", ("positions_stored", "embd"), _used_positions),
        *(rule for rule in Bert.rules if rule.source != _POSITIONS),
    )
    skip: ClassVar[Mapping[str, str]] = {
        **Bert.skip,
        "lm_head.*": "the heads of pre-training are no part of an embedding",
    }

    def dimensions(self) -> Dimensions:
        """BERT's, with the positions that are used."""
        dimensions = dict(super().dimensions())
        offset = 1 + self.config.integer("pad_token_id", default=1, minimum=0)
        stored = dimensions["positions"]
        if offset >= stored:
            raise self.config.fail(
                "max_position_embeddings", f"must be above {offset}, where the positions begin"
            )
        return {**dimensions, "positions_stored": stored, "positions": stored - offset}
