"""Tensors in types that llama.cpp can compute with, and none missing that it does not ask for.

It checks shapes itself, but not types: a bias in Q8_0 or a norm of integers ends the process in
ggml (``binary_op: unsupported types``, src/ggml-cpu/binary-ops.cpp) when the first token comes.
It also takes queries, keys and values as one tensor or as three, and a layer that has neither
(``create_tensor_qkv`` in src/llama-model.cpp).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.header import GGUFHeader, TensorInfo

_NO_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64"})
# Matrices that are no factor of a product: the operators there (add, ssm_conv, ssm_scan, rope,
# those of RWKV) take nothing but F32.
_ONLY_F32 = re.compile(
    r"(token_types|ssm_(conv1d|a|d|dt|norm)|ssm_(dt|b|c)_norm|shortconv\.conv|rope_(freqs|factors_\w+)"
    r"|attn_sinks|time_mix_\w*(first|decay|w0|a0|v0|g0|k_k|k_a|r_k|lerp\w*))(\.weight|\.bias)?$"
)
# Architectures all of whose layers have attention, as far as they are known through and through.
_ATTEND_IN_EVERY_LAYER = frozenset({"llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2", "bert"})
_QUERIES_KEYS_VALUES = (("attn_qkv",), ("attn_q", "attn_k", "attn_v"))
_MAX_ROW = 2**31 - 1


def check_tensors(header: GGUFHeader, tensors: Sequence[TensorInfo]) -> None:
    """Raises ModelFileError for a tensor that ggml cannot compute with, or that is missing.

    ``tensors`` are those of all parts of the model that ``header`` is the header of.
    """
    path = header.path
    for tensor in tensors:
        problem = _problem(tensor)
        if problem:
            raise ModelFileError(path, f"is damaged or no sound model: {tensor.name} {problem}")

    if header.architecture in _ATTEND_IN_EVERY_LAYER:
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
    by_element = len(shape) <= 1 or not tensor.name.endswith(".weight")
    if kind != "F32" and (by_element or _ONLY_F32.search(tensor.name)):
        return f"is {kind}, but must be F32"
    return None
