"""Tensors in types that llama.cpp can compute with, and none missing that it does not ask for.

It checks shapes itself, but not types: a bias in Q8_0 or a norm of integers ends the process in
ggml (``binary_op: unsupported types``, src/ggml-cpu/binary-ops.cpp) when the first token comes.
It also takes queries, keys and values as one tensor or as three, and in phi3 a layer that has
neither (``create_tensor_qkv`` in src/llama-model.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files import known
from mofa_gguf.engine.files.header import GGUFHeader, TensorInfo

_NO_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64"})
# Matrices that are no factor of a product: add, ssm_conv, ssm_scan and rope take nothing but F32.
_ONLY_F32 = re.compile(
    r"(token_types|ssm_(conv1d|a|d|norm)|ssm_(dt|b|c)_norm|rope_(freqs|factors_\w+))"
    r"(\.weight|\.bias)?$"
)
_QUERIES_KEYS_VALUES = (("attn_qkv",), ("attn_q", "attn_k", "attn_v"))
_MAX_ROW = 2**31 - 1


def check_tensors(header: GGUFHeader, tensors: Sequence[TensorInfo]) -> None:
    """Raises ModelFileError for a tensor that ggml cannot compute with, or that is missing.

    ``tensors`` are those of all parts of the model that ``header`` is the header of.
    """
    path = header.path
    if header.architecture not in known.ARCHITECTURES:
        return  # some have tables of whole numbers among their weights
    for tensor in tensors:
        problem = _problem(tensor)
        if problem:
            raise ModelFileError(path, f"is damaged or no sound model: {tensor.name} {problem}")

    if header.architecture in known.EVERY_LAYER_ATTENDS:
        names = {tensor.name for tensor in tensors}
        for layer in range(header.hyperparameter("block_count")):
            if not any(names.issuperset(_names(layer, each)) for each in _QUERIES_KEYS_VALUES):
                raise ModelFileError(path, f"is damaged: blk.{layer} has no attn_q, attn_k, attn_v")


def _names(layer: int, parts: tuple[str, ...]) -> set[str]:
    return {f"blk.{layer}.{part}.weight" for part in parts}


def _problem(tensor: TensorInfo) -> str | None:
    kind, shape = tensor.type.name, tensor.shape
    if any(n > _MAX_ROW for n in shape):
        return f"has the shape {shape}"
    if kind in _NO_WEIGHTS:
        return f"is {kind}, which is not for weights"
    by_element = len(shape) <= 1 or tensor.name.endswith(".bias")
    if kind != "F32" and (by_element or _ONLY_F32.search(tensor.name)):
        return f"is {kind}, but must be F32"
    return None
