"""Stacks, parts and turned matrices read piece by piece give what numpy gives for the whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.weights import (
    Weights,
    columns,
    computed,
    is_finite,
    mapped,
    rows_of_each,
    stacked,
    transposed,
)

Array = npt.NDArray[np.float32]


def numbers(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def assert_reads_as(weights: Weights, expected: Array) -> None:
    """In one piece, row by row, and in pieces that cross every border."""
    assert weights.shape == expected.shape
    rows = expected.reshape(-1, expected.shape[-1])
    assert weights.n_rows == len(rows)
    for step in (1, 3, 5, len(rows)):
        for start in range(0, len(rows), step):
            stop = min(start + step, len(rows))
            np.testing.assert_array_equal(weights.read(start, stop), rows[start:stop])


CASES: dict[str, tuple[Callable[[Weights], Weights], Callable[[Array], Array]]] = {
    "upper rows": (
        lambda w: rows_of_each(w, np.arange(3)),
        lambda a: a[:, :3],
    ),
    "lower rows": (
        lambda w: rows_of_each(w, np.arange(3, 6)),
        lambda a: a[:, 3:],
    ),
    "every second row": (
        lambda w: rows_of_each(w, np.arange(1, 6, 2)),
        lambda a: a[:, 1::2],
    ),
    "turned": (transposed, lambda a: a.swapaxes(1, 2)),
    "every second row of the turned": (
        lambda w: rows_of_each(transposed(w), np.arange(0, 4, 2)),
        lambda a: a.swapaxes(1, 2)[:, ::2],
    ),
    "every second column": (lambda w: columns(w, slice(1, None, 2)), lambda a: a[..., 1::2]),
    "squared": (lambda w: mapped(w, np.square), np.square),
}


@pytest.mark.parametrize("name", CASES)
def test_parts_of_a_stack(name: str) -> None:
    take, expected = CASES[name]
    values = numbers(3, 6, 4)
    assert_reads_as(take(computed(values)), expected(values))
    assert_reads_as(take(stacked([computed(matrix) for matrix in values])), expected(values))


def test_a_stack_of_vectors_is_a_matrix() -> None:
    values = numbers(3, 4)
    assert_reads_as(stacked([computed(row) for row in values]), values)


def test_a_stack_lets_each_part_go_when_it_was_read() -> None:
    gone: list[int] = []
    parts = [
        Weights(
            (2, 4), "F32", computed(numbers(2, 4)).read, (str(i),), None, lambda i=i: gone.append(i)
        )
        for i in range(3)
    ]
    whole = stacked(parts)
    whole.read(0, 1)
    assert gone == []
    whole.read(1, 3)
    assert gone == [0]
    whole.read(3, 6)
    assert gone == [0, 1, 2]


def test_tensors_of_different_types_make_no_stack() -> None:
    halves = Weights((2, 4), "F16", computed(numbers(2, 4)).read, ("second",))
    floats = Weights((2, 4), "F32", computed(numbers(2, 4)).read, ("first",))
    with pytest.raises(BadTensor, match="'first'"):
        stacked([floats, halves])


def test_rows_that_are_a_run_in_another_order_are_reordered() -> None:
    matrix = computed(np.arange(8, dtype=np.float32).reshape(4, 2))
    order = np.array([2, 0, 3, 1])
    assert rows_of_each(matrix, order).read(0, 4)[:, 0].tolist() == [4, 0, 6, 2]
    assert rows_of_each(matrix, order[:2]).read(0, 2)[:, 0].tolist() == [4, 0]


@pytest.mark.parametrize(("dtype", "exponent"), [("F16", 0x7C00), ("BF16", 0x7F80)])
def test_of_all_16_bit_patterns_those_with_a_full_exponent_are_not_finite(
    dtype: str, exponent: int
) -> None:
    patterns = np.arange(2**16, dtype=np.uint16)
    rows = patterns.view(np.float16) if dtype == "F16" else patterns
    good = patterns & exponent != exponent
    assert is_finite(rows[good][None], dtype)
    for i in np.flatnonzero(~good):
        assert not is_finite(rows[i : i + 1][None], dtype)


def test_floats_are_finite_up_to_the_largest_of_either_sign() -> None:
    largest = np.finfo(np.float32).max
    assert is_finite(np.array([[largest, -largest, 0.0, -0.0, 1e-45]], np.float32), "F32")
    assert is_finite(np.empty((0, 4), np.float32), "F32")
    odd = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF])
    for value in odd.astype(np.uint32).view(np.float32):
        assert not is_finite(np.array([[1.0, value, -1.0]], np.float32), "F32")
