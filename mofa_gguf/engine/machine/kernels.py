"""What this build of llama.cpp computes attention with, found out by letting it compute.

On the CPU, flash attention adds up values of an F16 cache some at a time (``ggml_vec_mad_f16`` and
``GGML_F16_STEP`` in ggml/src/ggml-cpu); what is left over of a head goes through scalar code, about
four times as slow. The step is in no header and no list of features.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.machine.backends import InitParams, api, cpu_device, function_of
from mofa_gguf.engine.native import llama

_HALF_STEP = 128
_STEPS = (("AVX512 = 1", 64), ("F16C = 1", 32), ("NEON = 1", 32))
_SCORE = -0.3
_F32, _F16 = 0, 1
_N_TENSORS = 16

_Values = npt.NDArray[np.float32]


@lru_cache(maxsize=1)
def values_at_once() -> int:
    """Values of a head that flash attention adds up at a time; 0: one after another."""
    if multiplies_in_half_precision():
        return _HALF_STEP
    info = llama().llama_print_system_info().decode()
    return next((step for feature, step in _STEPS if feature in info), 0)


@lru_cache(maxsize=1)
def multiplies_in_half_precision() -> bool:
    """Whether the kernel multiplies F16 values as such (AVX512-FP16), which rounds once more.

    One query over two cells: the first counts 1 and has values of zero, the second counts
    ``exp(_SCORE)``, rounded to F16 before it is multiplied or not.
    """
    values = np.linspace(1.0, 2.0, _HALF_STEP, dtype=np.float16)
    weight = np.exp(np.float32(np.float16(_SCORE)), dtype=np.float32)
    seen = _attend(values) * (1 + weight)
    single = (values.astype(np.float32) * weight).astype(np.float16).astype(np.float32)
    half = (values * np.float16(weight)).astype(np.float32)
    return float(np.abs(seen - half).sum()) < float(np.abs(seen - single).sum())


def _attend(values: npt.NDArray[np.float16]) -> _Values:
    """Flash attention of one query over two cells of one head, by the CPU backend."""
    n = len(values)
    query = np.zeros(n, np.float32)
    query[0] = 1
    keys = np.zeros((2, n), np.float16)
    keys[1, 0] = _SCORE
    library = api()
    size = library.ggml_tensor_overhead() * _N_TENSORS + library.ggml_graph_overhead()
    context = library.ggml_init(InitParams(size, None, True))
    backend = library.ggml_backend_dev_init(cpu_device(), None)
    # More than one would stay in OpenMP's pool, beside which others sleep instead of waiting.
    set_threads = function_of(
        library.ggml_backend_dev_backend_reg(cpu_device()),
        "ggml_backend_set_n_threads",
        None,
        ctypes.c_void_p,
        ctypes.c_int,
    )
    buffer = None
    try:
        if set_threads is not None:
            set_threads(backend, 1)
        q = library.ggml_new_tensor_3d(context, _F32, n, 1, 1)
        k = library.ggml_new_tensor_3d(context, _F16, n, 2, 1)
        v = library.ggml_new_tensor_3d(context, _F16, n, 2, 1)
        out = library.ggml_flash_attn_ext(context, q, k, v, None, 1.0, 0.0, 0.0)
        graph = library.ggml_new_graph(context)
        library.ggml_build_forward_expand(graph, out)
        buffer = library.ggml_backend_alloc_ctx_tensors(context, backend)
        table = np.stack([np.zeros_like(values), values])
        for tensor, data in ((q, query), (k, keys), (v, table)):
            library.ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)
        library.ggml_backend_graph_compute(backend, graph)
        result = np.empty(n, np.float32)
        library.ggml_backend_tensor_get(out, result.ctypes.data, 0, result.nbytes)
        return result
    finally:
        if buffer:
            library.ggml_backend_buffer_free(buffer)
        library.ggml_backend_free(backend)
        library.ggml_free(context)
