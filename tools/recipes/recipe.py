"""What one tiny checkpoint is made from, and the sizes that most have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

N_VOCAB = 320
WIDTH = 64

SMALL = {
    "vocab_size": N_VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Recipe:
    """One checkpoint: a class of transformers, its configuration, how it is stored."""

    model_class: str
    config: dict[str, Any] = field(default_factory=dict)
    dtype: str = "bfloat16"
    tokenizer: str = "bpe"
    shard_size: str = "5GB"
    old_rope: bool = False
    """Write config.json's rope settings as transformers 4 does."""
    original_format: bool = True
    """Store tensors as released checkpoints have them, not as transformers holds them."""
    n_tokens: int = 48
    """Length of the text that the parity fixtures compute."""
    pooling: str | None = None
    """Write sentence-transformers' files, with this flag: "mean_tokens", "lasttoken"."""
    dense: Sequence[int] = ()
    """Rows of the matrices behind the pooling."""
    packing: str | None = None
    """One of packed_weights.PACKINGS, for weights of fewer bits."""


# Small enough for a few experts a layer.
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_key_value_heads": 2}
NARROW = {**SMALL, **_SIZES, "num_experts_per_tok": 2}
DENSE_NARROW = {**SMALL, **_SIZES, "pad_token_id": 1}


def narrow(
    model_class: str,
    *,
    stored: dict[str, Any] | None = None,
    common: dict[str, Any] = NARROW,
    **config: Any,
) -> Recipe:
    """A recipe with few tokens; ``stored`` are arguments of Recipe itself."""
    if "text_config" in config:
        config["text_config"] = {**common, **config["text_config"]}
    else:
        config = {**common, **config}
    return Recipe(model_class, config, **{"n_tokens": 24, **(stored or {})})


Entry = tuple[str, dict[str, Any], dict[str, Any]]
"""Class, configuration on top of the narrow one, further arguments of Recipe."""


def rope(kind: str = "default", theta: float = 10000.0, **settings: Any) -> dict[str, Any]:
    """rope_parameters as transformers 5 writes them."""
    return {"rope_type": kind, "rope_theta": theta, **settings}
