"""Which weights llama.cpp lays out anew for this CPU, and so holds outside of the mapped file.

The CPU backend has buffer types of its own besides the common one (AMX, repacked blocks, KleidiAI).
llama.cpp asks the backend for each weight whether it can multiply with it in one of them
(``weight_buft_supported`` in src/llama-model-loader.cpp); the same is asked here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import lru_cache

from mofa_gguf.engine.files.header import TensorInfo
from mofa_gguf.engine.machine.amx import weights_may_be_repacked
from mofa_gguf.engine.machine.backends import Handle, InitParams, api, cpu_device, function_of
from mofa_gguf.engine.planning.facts import is_input
from mofa_gguf.engine.planning.sizing import BLOCK, TILE

_N_ROWS = 512
_N_TENSORS = 8
_F32, _I32 = 0, 26
_AMX = "AMX"
_BUFFER_OFFSET = 8  # struct ggml_tensor begins with its type, then its buffer


def repacked(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """Those of a model's tensors that the CPU backend keeps in a layout of its own.

    Token embeddings are only looked up and never are; used as output matrix, too, they are held
    twice (see :func:`repacked_bytes`).
    """
    return [tensor for tensor in tensors if not is_input(tensor.name) and repacked_bytes(tensor)]


def repacked_bytes(tensor: TensorInfo) -> int:
    """What a tensor takes in the layout that the CPU backend multiplies with; 0 if in none."""
    return _layout(tensor)[1]


def tokens_at_once(tensors: Iterable[TensorInfo]) -> int:
    """How many tokens most of a model's weights are multiplied with at a time; 0: one by one."""
    n_bytes = {"": 0}
    for tensor in tensors:
        if not is_input(tensor.name):
            name, _ = _layout(tensor)
            n_bytes[name] = n_bytes.get(name, 0) + tensor.n_bytes
    most = max(n_bytes, key=lambda name: n_bytes[name])
    return TILE if most == _AMX else BLOCK if len(n_bytes) > 1 else 0


def _layout(tensor: TensorInfo) -> tuple[str, int]:
    """The buffer type in which the CPU backend multiplies with a tensor, and its bytes there."""
    if len(tensor.shape) < 2 or not weights_may_be_repacked():
        return "", 0
    return _layout_of(tensor.type.id, tensor.shape)


@lru_cache(maxsize=1024)
def _layout_of(type_id: int, shape: tuple[int, ...]) -> tuple[str, int]:
    for buffer_type in _extra_buffer_types():
        size = _bytes_in(buffer_type, type_id, shape)
        if size:
            name: bytes = api().ggml_backend_buft_name(buffer_type)
            return name.decode(), size
    return "", 0


@lru_cache(maxsize=1)
def _extra_buffer_types() -> tuple[Handle, ...]:
    device = cpu_device()
    registry = api().ggml_backend_dev_backend_reg(device)
    listing = ctypes.POINTER(ctypes.c_void_p)
    get = function_of(registry, "ggml_backend_dev_get_extra_bufts", listing, ctypes.c_void_p)
    found: list[Handle] = []
    listed = get(device) if get is not None else None
    while listed and listed[len(found)]:
        found.append(listed[len(found)])
    return tuple(found)


def _bytes_in(buffer_type: Handle, type_id: int, shape: tuple[int, ...]) -> int:
    """What a weight of this shape takes in that buffer type; 0 where it cannot be used there."""
    library = api()
    context = library.ggml_init(InitParams(library.ggml_tensor_overhead() * _N_TENSORS, None, True))
    buffer = library.ggml_backend_buft_alloc_buffer(buffer_type, 0)
    try:
        if len(shape) == 2:
            weight = library.ggml_new_tensor_2d(context, type_id, *shape)
            rows = library.ggml_new_tensor_2d(context, _F32, shape[0], _N_ROWS)
            product = library.ggml_mul_mat(context, weight, rows)
        else:
            weight = library.ggml_new_tensor_3d(context, type_id, *shape[:3])
            rows = library.ggml_new_tensor_3d(context, _F32, shape[0], 1, _N_ROWS)
            ids = library.ggml_new_tensor_2d(context, _I32, 1, _N_ROWS)
            product = library.ggml_mul_mat_id(context, weight, rows, ids)
        ctypes.c_void_p.from_address(weight + _BUFFER_OFFSET).value = buffer
        if not library.ggml_backend_dev_supports_op(cpu_device(), product):
            return 0
        size: int = library.ggml_backend_buft_get_alloc_size(buffer_type, weight)
        return size
    finally:
        library.ggml_backend_buffer_free(buffer)
        library.ggml_free(context)
