"""What flows into a model's weight matrices while it reads: the numbers of an importance matrix.

For every matrix, the sum of the squares of each column's inputs and how many rows were summed;
for a stack of experts, those of each expert with the tokens that were sent to it. What counts is
what llama.cpp's llama-imatrix counts (``collect_imatrix`` in tools/imatrix/imatrix.cpp): products
with matrices of the blocks, of 16 rows or more, and with all experts.

ggml calls back before each node of a graph, to ask whether it is of interest, and after those that
are (``ggml_backend_sched_eval_callback``). The bindings know ``struct ggml_tensor`` by name only:
its layout stands here, and is held against what the library says of the first tensor seen.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.native import ggml, llama

_FEWEST_ROWS = 16
_F32 = 0  # ggml.h, enum ggml_type
_OBJECT_BYTES = 32  # ggml.c, GGML_OBJECT_SIZE
_MOST_OPS = 90  # fewer than there are: beyond the last there is nothing to read
_BLOCKS, OUTPUT = "blk.", "output.weight"


class _Tensor(ctypes.Structure):
    """``struct ggml_tensor`` (ggml/include/ggml.h)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


@dataclass
class ColumnSums:
    """Of one tensor: sums of squares, shape (matrices, row length), and how many rows each has.

    ``counts`` has one number for all matrices, or one for each expert of a stack.
    """

    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


class Collector:
    """Gathers :class:`ColumnSums` by tensor name, from the contexts that get its ``callback``.

    ``with_output`` takes the output matrix, too. What goes wrong inside the callback cannot pass
    through C: :meth:`check` raises it afterwards.
    """

    def __init__(self, *, with_output: bool = False) -> None:
        self.found: dict[str, ColumnSums] = {}
        self._with_output = with_output
        self._product, self._experts = _operation("MUL_MAT"), _operation("MUL_MAT_ID")
        self._problem: BaseException | None = None
        self._is_checked = False
        self.callback: Any = llama().ggml_backend_sched_eval_callback(self._on_node)

    def check(self) -> None:
        """Raise what the callback could not: EngineError for a value that is not finite."""
        if self._problem is not None:
            raise self._problem

    def _on_node(self, address: int, asks: bool, _user_data: object) -> bool:
        node = _Tensor.from_address(address)
        if node.op not in (self._product, self._experts):
            return not asks
        try:
            if not self._is_checked:
                _check_layout(address, node)
                self._is_checked = True
            weights, inputs = (_Tensor.from_address(node.src[i]) for i in (0, 1))
            name = _plain_name(weights.name.decode(errors="replace"))
            if asks:
                return node.op == self._experts or self._is_wanted(name, inputs)
            if node.op == self._experts:
                self._add_experts(name, weights, node.src[1], node.src[2])
            else:
                self._add(name, weights, node.src[1])
        except BaseException as error:  # noqa: BLE001 - must not pass through C
            self._problem = self._problem or error
            return False
        return True

    def _is_wanted(self, name: str, inputs: _Tensor) -> bool:
        if inputs.ne[1] < _FEWEST_ROWS or inputs.type != _F32:
            return False
        return name.startswith(_BLOCKS) or (self._with_output and name == OUTPUT)

    def _add(self, name: str, weights: _Tensor, address: int) -> None:
        values = _values(address, np.float32)
        n_stacks, n_in_stack = weights.ne[3], weights.ne[2]
        n_matrices = n_stacks * n_in_stack
        entry = self._entry(name, n_matrices, values.shape[-1], n_counts=1)
        for third in range(values.shape[0]):
            for second in range(values.shape[1]):
                matrix = third % n_stacks * n_in_stack + second % n_in_stack
                entry.sums[matrix] += _squares(values[third, second])
        entry.counts += values.size // values.shape[-1] // n_matrices
        _check_finite(name, entry.sums)

    def _add_experts(self, name: str, weights: _Tensor, address: int, chosen: int) -> None:
        values, ids = _values(address, np.float32)[0], _values(chosen, np.int32)[0, 0]
        n_experts = weights.ne[2]
        entry = self._entry(name, n_experts, values.shape[-1], n_counts=n_experts)
        for expert in np.unique(ids):
            tokens, slots = np.nonzero(ids == expert)
            entry.sums[expert] += _squares(values[tokens, slots % values.shape[1]])
            entry.counts[expert] += len(tokens)
        _check_finite(name, entry.sums)

    def _entry(self, name: str, n_matrices: int, n_columns: int, *, n_counts: int) -> ColumnSums:
        entry = self.found.get(name)
        if entry is None:
            entry = self.found[name] = ColumnSums(
                np.zeros((n_matrices, n_columns)), np.zeros(n_counts, np.int64)
            )
        if entry.sums.shape != (n_matrices, n_columns):
            raise EngineError(f"{name} is multiplied in two ways, which no importance matrix holds")
        return entry


def _squares(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Sums of the columns' squares."""
    sums: npt.NDArray[np.float32] = np.einsum("ij,ij->j", rows, rows)
    return sums


def _check_finite(name: str, sums: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(sums).all():
        raise EngineError(f"what flows into {name} is not finite; the model's file is damaged")


def _plain_name(name: str) -> str:
    """A copy for another device is called ``CUDA0#blk.0.attn_k.weight#0``."""
    parts = name.split("#")
    return parts[1] if parts[1:] else name


def _values(address: int, kind: Any) -> npt.NDArray[Any]:
    """A tensor's elements, slowest dimension first: a view of host memory, else a copy."""
    tensor, library = _Tensor.from_address(address), _library()
    n_bytes = library.ggml_nbytes(address)
    if tensor.buffer and library.ggml_backend_buffer_is_host(tensor.buffer):
        data: Any = (ctypes.c_uint8 * n_bytes).from_address(tensor.data)
    else:
        data = np.empty(n_bytes, np.uint8)
        library.ggml_backend_tensor_get(address, data.ctypes.data, 0, n_bytes)
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    values: npt.NDArray[Any] = np.ndarray(shape, kind, buffer=data, strides=strides)
    return values


def _check_layout(address: int, tensor: _Tensor) -> None:
    library = _library()
    if (
        library.ggml_tensor_overhead() - _OBJECT_BYTES != ctypes.sizeof(_Tensor)
        or library.ggml_get_name(address) != tensor.name
        or library.ggml_get_data(address) != tensor.data
    ):
        raise EngineError(
            "this build of llama.cpp lays out its tensors in another way than this package knows; "
            "use the version of llama-cpp-python that it asks for"
        )


def _operation(name: str) -> int:
    """The number of a ggml operation, which changes from version to version."""
    library = _library()
    for number in range(_MOST_OPS):
        if library.ggml_op_name(number) == name.encode():
            return number
    raise EngineError(f"this build of ggml has no operation {name}")


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = ggml()
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in (
        ("ggml_op_name", ctypes.c_char_p, [ctypes.c_int]),
        ("ggml_tensor_overhead", size, []),
        ("ggml_get_name", ctypes.c_char_p, [pointer]),
        ("ggml_get_data", pointer, [pointer]),
        ("ggml_nbytes", size, [pointer]),
        ("ggml_backend_buffer_is_host", ctypes.c_bool, [pointer]),
        ("ggml_backend_tensor_get", None, [pointer, pointer, size, size]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
