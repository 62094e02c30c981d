"""llama.cpp's own quantizer, through its C API: what ours is compared with."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from mofa_gguf.convert.importance import Importance
from mofa_gguf.convert.overrides import NO_OVERRIDES, Overrides
from mofa_gguf.engine.native import llama


def llama_quantize(
    source: Path,
    target: Path,
    file_type: int,
    *,
    overrides: Overrides = NO_OVERRIDES,
    importance: Importance | None = None,
    allow_requantize: bool = False,
    only_copy: bool = False,
) -> Path:
    """Quantize a GGUF file; AssertionError where llama.cpp refuses."""
    library = llama()
    params = library.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = 1
    params.pure = overrides.pure
    params.allow_requantize = allow_requantize
    params.only_copy = only_copy
    if overrides.output:
        params.output_tensor_type = overrides.output.id
    if overrides.embedding:
        params.token_embedding_type = overrides.embedding.id
    patterns = [(p.pattern.pattern.lower().encode(), p.type.id) for p in overrides.patterns]
    pairs = [library.llama_model_tensor_override(*pair) for pair in [*patterns, (None, 0)]]
    if patterns:
        params.tt_overrides = (library.llama_model_tensor_override * len(pairs))(*pairs)
    entries = {} if importance is None else dict(importance.entries)
    arrays = {name: np.ascontiguousarray(values) for name, values in entries.items()}
    float_pointer = ctypes.POINTER(ctypes.c_float)
    data = [
        library.llama_model_imatrix_data(
            name.encode(), values.ctypes.data_as(float_pointer), values.size
        )
        for name, values in arrays.items()
    ]
    if arrays:
        data.append(library.llama_model_imatrix_data(None, None, 0))
        params.imatrix = (library.llama_model_imatrix_data * len(data))(*data)
    status = library.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    assert status == 0, "llama.cpp's quantizer refuses"
    return target
