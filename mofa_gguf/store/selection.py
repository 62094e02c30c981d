"""Which files of a hub repository make up a model. Pure functions of file names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from mofa_gguf.store.on_disk import SPLIT_NAME

# Tried in this order when nothing was asked for: good answers for their size first.
PREFERRED_QUANTIZATIONS = (
    "Q4_K_M",
    "Q5_K_M",
    "Q4_K_S",
    "Q5_K_S",
    "Q6_K",
    "Q8_0",
    "Q4_0",
    "IQ4_XS",
    "Q3_K_M",
    "F16",
    "BF16",
    "F32",
)

# A checkpoint's own files: weights at the top, plus configuration and tokenizer. Pickles and
# other frameworks' weights are never fetched.
_CHECKPOINT_FILE = re.compile(
    r"[^/]+\.(safetensors|json|model|jinja|tiktoken)|vocab\.txt|merges\.txt"
    r"|additional_chat_templates/[^/]+\.jinja|\d+_\w+/config\.json",
    re.IGNORECASE,
)
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl)", re.IGNORECASE)
_MANY = 12


class SelectionError(ValueError):
    """No model, or no single one, among the files; the text completes "the repository ..."."""


@dataclass(frozen=True)
class Selection:
    """Files to fetch. ``main`` is what llama.cpp opens, or a checkpoint's config.json.

    ``quantization`` is what a checkpoint should be converted to, when the reference said so.
    """

    kind: Literal["gguf", "checkpoint"]
    files: tuple[str, ...]
    main: str
    quantization: str | None = None


def select_files(names: Iterable[str], choice: str | None = None) -> Selection:
    """Choose among a repository's files.

    ``choice`` is a file's name or a quantization type; without it, the best-liked quantization
    that is there. Split GGUF files come whole. Without GGUF files, the checkpoint is taken.
    Raises SelectionError when the choice is not there or not clear.
    """
    every = sorted(names)
    models = _gguf_models(every)
    if models:
        return _select_gguf(models, choice)
    return _select_checkpoint(every, choice)


def _gguf_models(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """First file of each model -> all its files; no projectors, no importance matrices."""
    models: dict[str, tuple[str, ...]] = {}
    splits: dict[str, list[str]] = {}
    for name in names:
        base = name.rsplit("/", 1)[-1].lower()
        if not base.endswith(".gguf") or base.startswith("mmproj") or "imatrix" in base:
            continue
        split = SPLIT_NAME.fullmatch(name)
        if split is None:
            models[name] = (name,)
        else:
            splits.setdefault(f"{split['stem']}-of-{split['count']}", []).append(name)
    for parts in splits.values():
        match = SPLIT_NAME.fullmatch(parts[0])
        if match is not None and len(parts) == int(match["count"]):
            models[parts[0]] = tuple(parts)
    return models


def _select_gguf(models: dict[str, tuple[str, ...]], choice: str | None) -> Selection:
    if choice is None:
        return _gguf(models, _usual(models))
    for main, files in models.items():
        if any(choice in (name, name.rsplit("/", 1)[-1]) for name in files):
            return _gguf(models, main)
    found = _of_quantization(models, choice)
    if len(found) == 1:
        return _gguf(models, found[0])
    if found:
        raise SelectionError(f"has several files for {choice}, name one: {_listed(found)}")
    raise SelectionError(f"has no {choice}; it has {_listed(models)}")


def _gguf(models: dict[str, tuple[str, ...]], main: str) -> Selection:
    return Selection("gguf", models[main], main)


def _usual(models: dict[str, tuple[str, ...]]) -> str:
    if len(models) == 1:
        return next(iter(models))
    for quantization in PREFERRED_QUANTIZATIONS:
        found = _of_quantization(models, quantization)
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise SelectionError(f"has several models, name one: {_listed(models)}")


def _of_quantization(models: Iterable[str], quantization: str) -> list[str]:
    # "Q4_K" must not find Q4_K_M, nor "K_M" anything.
    tag = re.compile(rf"(?:^|[-./]){re.escape(quantization)}(?:[-./]|$)", re.IGNORECASE)
    return [name for name in models if tag.search(name)]


def _select_checkpoint(names: Sequence[str], choice: str | None) -> Selection:
    weights = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if not weights:
        pickles = [name for name in names if _PICKLE.fullmatch(name)]
        if pickles:
            raise SelectionError(
                f"has only pickled weights ({_listed(pickles)}), and reading a pickle can run any "
                "code; look for a safetensors or GGUF version of the model"
            )
        raise SelectionError("has neither GGUF nor safetensors files")
    if "config.json" not in names:
        raise SelectionError("has safetensors files but no config.json, so it is no checkpoint")
    if choice is not None and choice.lower().endswith((".gguf", ".safetensors")):
        raise SelectionError(f"has no {choice}; it is a checkpoint with {_listed(weights)}")
    if any(name.startswith("model") for name in weights):
        # The same weights a second time, in another layout.
        weights = [name for name in weights if not name.startswith("consolidated")]
    others = [
        name
        for name in names
        if _CHECKPOINT_FILE.fullmatch(name) and not name.endswith(".safetensors")
    ]
    # Weights last: where they are complete, everything else is there too.
    return Selection("checkpoint", (*others, *weights), "config.json", choice)


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _MANY} more" if len(every) > _MANY else ""
    return ", ".join(every[:_MANY]) + more
