"""The part of ggml's backend API that the engine uses, with its argument types declared once.

Source: ggml/include/ggml-backend.h and ggml/include/ggml.h.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from mofa_gguf.engine.native import ggml

Handle = int
"""A pointer of ggml's: ``ggml_backend_dev_t``, ``ggml_backend_buffer_type_t``, ..."""

_POINTER, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
_SIZES = ctypes.POINTER(ctypes.c_size_t)


class InitParams(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


# Name: what it returns, what it takes.
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "ggml_backend_dev_count": (_SIZE, []),
    "ggml_backend_dev_get": (_POINTER, [_SIZE]),
    "ggml_backend_dev_by_name": (_POINTER, [_TEXT]),
    "ggml_backend_dev_by_type": (_POINTER, [ctypes.c_int]),
    "ggml_backend_dev_name": (_TEXT, [_POINTER]),
    "ggml_backend_dev_description": (_TEXT, [_POINTER]),
    "ggml_backend_dev_type": (ctypes.c_int, [_POINTER]),
    "ggml_backend_dev_memory": (None, [_POINTER, _SIZES, _SIZES]),
    "ggml_backend_dev_buffer_type": (_POINTER, [_POINTER]),
    "ggml_backend_dev_backend_reg": (_POINTER, [_POINTER]),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [_POINTER, _POINTER]),
    "ggml_backend_reg_by_name": (_POINTER, [_TEXT]),
    "ggml_backend_reg_dev_count": (_SIZE, [_POINTER]),
    "ggml_backend_reg_dev_get": (_POINTER, [_POINTER, _SIZE]),
    "ggml_backend_reg_get_proc_address": (_POINTER, [_POINTER, _TEXT]),
    "ggml_backend_buft_name": (_TEXT, [_POINTER]),
    "ggml_backend_buft_get_alloc_size": (_SIZE, [_POINTER, _POINTER]),
    "ggml_backend_buft_alloc_buffer": (_POINTER, [_POINTER, _SIZE]),
    "ggml_backend_buffer_free": (None, [_POINTER]),
    "ggml_tensor_overhead": (_SIZE, []),
    "ggml_new_tensor_2d": (_POINTER, [_POINTER, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
    "ggml_new_tensor_3d": (
        _POINTER,
        [_POINTER, ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64],
    ),
    "ggml_mul_mat": (_POINTER, [_POINTER, _POINTER, _POINTER]),
    "ggml_mul_mat_id": (_POINTER, [_POINTER, _POINTER, _POINTER, _POINTER]),
    "ggml_init": (_POINTER, [InitParams]),
    "ggml_free": (None, [_POINTER]),
    "ggml_flash_attn_ext": (_POINTER, [_POINTER] * 5 + [ctypes.c_float] * 3),
    "ggml_graph_overhead": (_SIZE, []),
    "ggml_new_graph": (_POINTER, [_POINTER]),
    "ggml_build_forward_expand": (None, [_POINTER, _POINTER]),
    "ggml_backend_dev_init": (_POINTER, [_POINTER, _TEXT]),
    "ggml_backend_free": (None, [_POINTER]),
    "ggml_backend_alloc_ctx_tensors": (_POINTER, [_POINTER, _POINTER]),
    "ggml_backend_tensor_set": (None, [_POINTER, _POINTER, _SIZE, _SIZE]),
    "ggml_backend_tensor_get": (None, [_POINTER, _POINTER, _SIZE, _SIZE]),
    "ggml_backend_graph_compute": (ctypes.c_int, [_POINTER, _POINTER]),
}
CPU_TYPE = 0  # enum ggml_backend_dev_type


@lru_cache(maxsize=1)
def api() -> ctypes.CDLL:
    """ggml's library, its functions declared."""
    library = ggml()
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def registered() -> Iterator[Handle]:
    """The devices in ggml's registry, in its order."""
    library = api()
    for index in range(library.ggml_backend_dev_count()):
        handle: Handle = library.ggml_backend_dev_get(index)
        yield handle


def cpu_device() -> Handle:
    """The device that every build has."""
    handle: Handle = api().ggml_backend_dev_by_type(CPU_TYPE)
    return handle


def buffer_type(device: Handle) -> Handle:
    """The buffer type that a device's weights lie in by default."""
    handle: Handle = api().ggml_backend_dev_buffer_type(device)
    return handle


def function_of(
    registry: Handle, name: str, result: object, *arguments: object
) -> Callable[..., Any] | None:
    """A function that a backend offers by name, or None."""
    address = api().ggml_backend_reg_get_proc_address(registry, name.encode())
    if not address:
        return None
    prototype: Any = ctypes.CFUNCTYPE(result, *arguments)  # type: ignore[arg-type]
    function: Callable[..., Any] = prototype(address)
    return function
