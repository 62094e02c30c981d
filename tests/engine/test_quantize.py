"""The table of types and the kernels, against the ggml library that is installed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from mofa_gguf.engine import quantize
from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.files.tensor_types import TYPES_BY_ID, TYPES_BY_NAME
from mofa_gguf.engine.quantize import (
    NotRepresentable,
    can_dequantize,
    can_quantize_to,
    dequantize_rows,
    library_type,
    quantize_rows,
)

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
    weights = np.arange(512, dtype=np.float32)
    whole = quantize_rows(rows, kind, weights)
    assert whole.shape == (8, kind.row_bytes(512))
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda i: quantize_rows(rows[i : i + 1], kind, weights), range(8))
        assert np.concatenate(list(parts)).tobytes() == whole.tobytes()


def test_half_precision_has_the_bits_of_ggmls_own_kernel() -> None:
    # Every exponent and sign, with mantissas around every place where rounding turns.
    mantissas = np.concatenate(
        [np.arange(0, 2**23, 997), 2 ** np.arange(23), 2**23 - 2 ** np.arange(23)]
    )
    exponents = np.arange(0, 127 + 16, dtype=np.uint32)[:, None] << 23
    bits = (exponents | mantissas.astype(np.uint32)[None, :]).reshape(-1)
    values = np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)
    values = values[np.abs(values) < 65520].reshape(1, -1)
    plain = np.empty(values.shape, np.uint16)
    quantize._library().ggml_quantize_chunk(
        TYPES_BY_NAME["F16"].id, values.ctypes.data, plain.ctypes.data, 0, 1, values.size, None
    )
    assert quantize_rows(values, TYPES_BY_NAME["F16"]).tobytes() == plain.tobytes()


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


@pytest.mark.parametrize("name", ["I32", "F64", "IQ2_XXS", "IQ2_XS", "IQ1_S"])
def test_types_without_a_kernel_for_rows_alone_are_refused(name: str) -> None:
    with pytest.raises(InvalidOption, match=name):
        quantize_rows(random_rows(), TYPES_BY_NAME[name])


GRIDS = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("values", "weights"), [(1.0, 3e38), (1e30, 1.0), (1e10, 1e10)])
def test_sums_that_overflow_are_refused_where_the_kernel_would_end_the_process(
    name: str, values: float, weights: float
) -> None:
    importance = np.full(512, weights, dtype=np.float32)
    with pytest.raises(NotRepresentable, match=name):
        quantize_rows(random_rows() * np.float32(values), TYPES_BY_NAME[name], importance)


@pytest.mark.parametrize("name", PRODUCIBLE)
@pytest.mark.parametrize("weights", [0.0, 1e-44, 1.0, 1e25])
def test_every_kernel_takes_any_weights_of_an_importance_matrix(name: str, weights: float) -> None:
    importance = np.full(512, weights, dtype=np.float32)
    kind = TYPES_BY_NAME[name]
    rows = quantize_rows(random_rows(2), kind, importance)
    assert rows.shape == (2, kind.row_bytes(512))


def test_weights_change_what_is_kept_well() -> None:
    rows = random_rows(64)
    importance = np.where(np.arange(512) < 256, 1.0, 0.001).astype(np.float32)
    importance[::4] *= 100
    kind = TYPES_BY_NAME["IQ2_XXS"]

    def error(weights: npt.NDArray[np.float32]) -> float:
        back = dequantize_rows(quantize_rows(rows, kind, weights), kind)
        return float(((back - rows) ** 2 * importance).sum())

    assert error(importance) < 0.9 * error(np.ones(512, np.float32))


def test_weights_must_be_one_a_column() -> None:
    with pytest.raises(ValueError, match="256"):
        quantize_rows(random_rows(), TYPES_BY_NAME["Q4_K"], np.ones(256, np.float32))


BLOCKS = [name for name in PRODUCIBLE if TYPES_BY_NAME[name].block_size > 1]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_turn_back_into_what_they_were_made_of(name: str) -> None:
    rows, kind = random_rows(), TYPES_BY_NAME[name]
    assert can_dequantize(kind)
    blocks = quantize_rows(rows, kind, np.ones(512, np.float32))
    back = dequantize_rows(blocks, kind)
    assert back.shape == rows.shape
    likeness = float(np.corrcoef(back.ravel(), rows.ravel())[0, 1])
    # From 1 bit (and ternary ones, made for weights of three values) to 8.
    assert likeness > (0.65 if kind.n_block_bytes * 8 / kind.block_size < 2.3 else 0.95)
    if name not in ("TQ1_0", "TQ2_0"):
        again = quantize_rows(back, kind, np.ones(512, np.float32))
        assert np.corrcoef(dequantize_rows(again, kind).ravel(), back.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", ["F32", "F16", "I32"])
def test_what_is_in_no_blocks_is_not_turned_back(name: str) -> None:
    assert not can_dequantize(TYPES_BY_NAME[name])
    with pytest.raises(InvalidOption, match=name):
        dequantize_rows(np.zeros((1, 16), np.uint8), TYPES_BY_NAME[name])


def test_bytes_must_be_whole_blocks() -> None:
    with pytest.raises(ValueError, match="whole blocks of Q8_0"):
        dequantize_rows(np.zeros((1, 33), np.uint8), TYPES_BY_NAME["Q8_0"])


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
