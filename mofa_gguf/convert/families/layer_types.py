"""Lists in config.json that say of each layer what it is."""

from __future__ import annotations

from collections.abc import Collection

from mofa_gguf.convert.config import Config

# Names that transformers had before version 5.
_FORMER = {"mamba": "linear_attention", "attention": "full_attention"}


def layer_types(
    config: Config, name: str, n_layers: int, known: Collection[str], default: list[str]
) -> list[str]:
    """One of ``known`` a layer; CheckpointError for anything else."""
    found = config.values.get(name)
    if found is None:
        return default
    if isinstance(found, list):
        found = [_FORMER.get(kind, kind) if isinstance(kind, str) else kind for kind in found]
    if not isinstance(found, list) or len(found) != n_layers or not all(t in known for t in found):
        raise config.fail(name, f"must be a list of {n_layers} of {', '.join(known)}")
    return list(found)


def leading(config: Config, name: str, n_layers: int, *, first: str, then: str) -> int:
    """How many layers are ``first``, before the others, which must all be ``then``."""
    types = layer_types(config, name, n_layers, (first, then), [then] * n_layers)
    count = types.index(then) if then in types else n_layers
    if first in types[count:]:
        raise config.fail(name, f"must have {first} before {then} only, for llama.cpp")
    return count
