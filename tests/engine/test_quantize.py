"""The table of types and the kernels, against the ggml library that is installed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.quantize import (
    NotRepresentable,
    can_quantize_to,
    library_type,
    quantize_rows,
)
from mofa_gguf.engine.tensor_types import TYPES_BY_ID, TYPES_BY_NAME

PRODUCIBLE = [name for name, kind in TYPES_BY_NAME.items() if can_quantize_to(kind)]


def random_rows(n_rows: int = 8, n_columns: int = 512) -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((n_rows, n_columns)).astype(np.float32)


@pytest.mark.parametrize("type_id", TYPES_BY_ID)
def test_the_table_of_types_is_ggmls(type_id: int) -> None:
    kind = TYPES_BY_ID[type_id]
    name, block_size, n_block_bytes = library_type(type_id)
    assert (name.upper(), block_size, n_block_bytes) == (
        kind.name,
        kind.block_size,
        kind.n_block_bytes,
    )


@pytest.mark.parametrize("name", PRODUCIBLE)
def test_row_ranges_in_threads_give_the_bytes_of_the_whole(name: str) -> None:
    rows, kind = random_rows(), TYPES_BY_NAME[name]
    whole = quantize_rows(rows, kind)
    assert whole.shape == (8, kind.row_bytes(512))
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda i: quantize_rows(rows[i : i + 1], kind), range(8))
        assert np.concatenate(list(parts)).tobytes() == whole.tobytes()


def test_half_precision_is_rounded_to_nearest_even() -> None:
    # Halfway between two neighbours, above and below an even one; a denormal; the largest.
    values = np.array([[1 + 2**-11, 1 + 3 * 2**-11, 2.0**-24, 65504.0]], dtype=np.float32)
    got = quantize_rows(values, TYPES_BY_NAME["F16"]).view(np.float16)
    assert got.tolist() == values.astype(np.float16).tolist()
    values = np.array([[1 + 2**-8, 1 + 3 * 2**-8]], dtype=np.float32)
    got = quantize_rows(values, TYPES_BY_NAME["BF16"]).view(np.uint16)
    assert got.tolist() == [[0x3F80, 0x3F82]]


@pytest.mark.parametrize("name", ["F16", "Q8_0", "Q4_K", "Q6_K", "Q2_K", "Q3_K", "IQ4_NL", "TQ1_0"])
def test_values_beyond_the_types_range_are_refused(name: str) -> None:
    rows = random_rows()
    rows[3] *= 1e9
    with pytest.raises(NotRepresentable, match="BF16 or F32"):
        quantize_rows(rows, TYPES_BY_NAME[name])


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ1_S", "I32", "MXFP4"])
def test_types_without_a_plain_kernel_are_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match=name):
        quantize_rows(random_rows(), TYPES_BY_NAME[name])


def test_rows_must_be_whole_blocks() -> None:
    with pytest.raises(ValueError, match="blocks of 256"):
        quantize_rows(random_rows(n_columns=300), TYPES_BY_NAME["Q4_K"])


def test_unaligned_and_strided_input_is_taken() -> None:
    rows = random_rows()
    expected = quantize_rows(rows, TYPES_BY_NAME["Q8_0"]).tobytes()
    assert quantize_rows(np.asfortranarray(rows), TYPES_BY_NAME["Q8_0"]).tobytes() == expected
    shifted = np.frombuffer(b"x" + rows.tobytes(), dtype=np.float32, offset=1).reshape(rows.shape)
    assert not shifted.flags.aligned
    assert quantize_rows(shifted, TYPES_BY_NAME["Q8_0"]).tobytes() == expected
