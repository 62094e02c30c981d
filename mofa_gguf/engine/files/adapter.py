"""Whether a file is a LoRA adapter for a model.

llama.cpp ends the process where an adapter's matrices do not fit those that they are added to
(src/llama-adapter.cpp looks at some of the sizes only), so they are checked here first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.header import GGUFHeader, TensorInfo

_SIDES = (".lora_a", ".lora_b")
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_TYPES = ("F32", "F16", "BF16")


def check_adapter(
    adapter: GGUFHeader, model: GGUFHeader, tensors: Sequence[TensorInfo] | None = None
) -> None:
    """Raise ModelFileError unless the adapter can be added to the model.

    ``tensors`` are the model's, where its file is divided; else those of its header.
    """
    _check_metadata(adapter, model)
    known = {tensor.name: tensor for tensor in (model.tensors if tensors is None else tensors)}
    found = {tensor.name: tensor for tensor in adapter.tensors}
    # llama.cpp passes over norms, which some tools put into adapters.
    names = {name for name in found if not name.endswith("_norm.weight")}
    targets = {name.removesuffix(side) for name in names for side in _SIDES if name.endswith(side)}
    if not targets or len(names) != 2 * len(targets):
        raise ModelFileError(adapter.path, "does not hold pairs of LoRA matrices")
    for target in sorted(targets):
        problem = _problem(target, found, known)
        if problem:
            raise ModelFileError(adapter.path, f"{problem}; is this the right base model?")


def _check_metadata(adapter: GGUFHeader, model: GGUFHeader) -> None:
    kind = adapter.metadata.get("general.type")
    if kind != "adapter" or adapter.metadata.get("adapter.type") != "lora":
        raise ModelFileError(adapter.path, f"is no LoRA adapter (general.type is {kind!r:.40})")
    if adapter.architecture != model.architecture:
        raise ModelFileError(
            adapter.path,
            f"is an adapter for {adapter.architecture!r:.40}, and the model is a "
            f"{model.architecture!r:.40}",
        )
    alpha = adapter.metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise ModelFileError(adapter.path, "has no adapter.lora.alpha that is a number")
    tokens = adapter.metadata.get("adapter.alora.invocation_tokens")
    if tokens is not None:
        raise ModelFileError(
            adapter.path,
            "counts only after certain tokens (activated LoRA), which is not supported",
        )


def _problem(
    target: str, found: Mapping[str, TensorInfo], known: Mapping[str, TensorInfo]
) -> str | None:
    """What is wrong with the pair for one tensor of the model."""
    if target not in known:
        return f"changes {target}, which the model does not have"
    if target == _EMBEDDING and _OUTPUT not in known:
        return "changes the token embeddings, which are the model's output matrix too"
    a, b = (found[target + side] for side in _SIDES)
    for half in (a, b):
        if half.type.name not in _TYPES:
            return f"has {half.name} in {half.type.name}; adapters are {', '.join(_TYPES)}"
    (n_in, n_out, *stack), (a0, a1, *a_stack), (b0, b1, *b_stack) = (
        (*tensor.shape, 1, 1)[: max(2, len(tensor.shape))] for tensor in (known[target], a, b)
    )
    if target == _EMBEDDING:
        fits = (a1, b1) == (n_out, n_in) and a0 == b0
    else:
        fits = (a0, b1) == (n_in, n_out) and a1 == b0
    if not fits or a_stack != stack or b_stack != stack:
        return (
            f"has matrices of {list(a.shape)} and {list(b.shape)} for {target} of "
            f"{list(known[target].shape)}"
        )
    return None
