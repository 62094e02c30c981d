"""How much memory it takes to run the model that a plan describes.

An estimate: the weights as they are in the file, the KV cache in 16 bits for every token of the
context, and an allowance for the buffers that a computation needs and for the program itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mofa_gguf.convert.gguf_format import ALIGNMENT
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.plan import Plan
from mofa_gguf.convert.report import MemoryEstimate
from mofa_gguf.engine.files.header import GGUFHeader, TensorInfo
from mofa_gguf.engine.planning.sizing import kv_bytes_per_token, trained_context

BATCH = 512
"""Tokens that llama.cpp computes at once (n_ubatch)."""
_PROGRAM_BYTES = 100 * 10**6
# Of a batch, in 32 bits: the logits, and a few rows as wide as the widest matrix.
_ROWS_IN_FLIGHT = 4


def memory_to_run(
    metadata: Mapping[str, Any], plan: Plan, n_vocab: int, n_ctx: int | None = None
) -> MemoryEstimate:
    """The estimate for a context of ``n_ctx`` tokens; by default what the model was trained for.

    ``metadata`` are the file's plain values.
    """
    header = GGUFHeader(
        Path("planned.gguf"),
        3,
        metadata,
        tuple(
            TensorInfo(tensor.name, tensor.shape[::-1], tensor.target, 0) for tensor in plan.tensors
        ),
        ALIGNMENT,
        plan.n_bytes,
    )
    n_tokens = n_ctx or trained_context(header)
    matrices = [tensor.shape for tensor in plan.tensors if len(tensor.shape) > 1]
    inner = [max(shape[-2:]) for shape in matrices if n_vocab not in shape]
    widest = max(inner, default=0)
    return MemoryEstimate(
        n_ctx=n_tokens,
        weights=plan.n_bytes,
        kv_cache=n_tokens * kv_bytes_per_token(header, "F16", "F16"),
        allowance=_PROGRAM_BYTES + 4 * BATCH * (n_vocab + _ROWS_IN_FLIGHT * widest),
    )


def plain_values(metadata: Metadata) -> dict[str, Any]:
    """Keys with their values as numbers, strings and lists."""
    return {
        key: list(value.data) if isinstance(value.data, Sequence) and value.is_array else value.data
        for key, value in metadata.items()
        if value.encoded is None
    }
