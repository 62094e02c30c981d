"""Which attention kernels a context uses.

llama.cpp's flash attention for CPUs goes through the cache cell by cell unless 64 tokens or more
come at once; its plain attention is a matrix product. Measured on two cores with AVX-512 (0.4 B
parameters, F16 cache, one stream of 4,096 cells): a decode step takes 135 ms with flash attention
and 57 ms without, 32 more prompt tokens 2.6 s and 0.5 s, 512 more 4.5 s and 7.7 s.
"""

from __future__ import annotations

from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.options import AUTO, FlashAttention


def attention_for(asked: FlashAttention, *, type_v: str, on_cpu: bool) -> FlashAttention:
    """The kernels for a cache with values of ``type_v``; "auto" leaves it to llama.cpp.

    Agents' turns are short prompts and answers, so on a CPU plain attention is the faster one,
    and only a quantized cache of values, which it cannot read, takes flash attention.
    """
    if asked != AUTO or not on_cpu:
        return asked
    is_plain = type_v == AUTO or TYPES_BY_NAME[type_v.upper()].block_size == 1
    return "off" if is_plain else "on"
