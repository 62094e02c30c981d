"""8-bit floats with a scale a block become the floats that their definition says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mofa_gguf.convert.block_scaled import e4m3_values, read_stored
from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.errors import BadTensor, CheckpointError
from tests.convert.makers import raw_safetensors

ROWS, COLUMNS, BLOCK = 10, 12, (4, 8)


def write(
    folder: Path, codes: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32], **config: Any
) -> Path:
    folder.mkdir(exist_ok=True)
    settings = {"quant_method": "fp8", "weight_block_size": list(BLOCK), **config}
    (folder / "config.json").write_text(json.dumps({"quantization_config": settings}))
    data = codes.tobytes() + scales.tobytes()
    header = {
        "w": {"dtype": "F8_E4M3", "shape": list(codes.shape), "data_offsets": [0, codes.nbytes]},
        "w_scale_inv": {
            "dtype": "F32",
            "shape": list(scales.shape),
            "data_offsets": [codes.nbytes, len(data)],
        },
    }
    (folder / "model.safetensors").write_bytes(raw_safetensors(header, data))
    return folder


def random_tensor() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    random = np.random.default_rng(0)
    codes = random.integers(0, 0x7F, size=(ROWS, COLUMNS), dtype=np.uint8)
    return codes | random.integers(0, 2, codes.shape, dtype=np.uint8) << 7, random.random(
        (3, 2), dtype=np.float32
    )


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (0x00, 0.0),
        (0x01, 2.0**-9),
        (0x07, 7 * 2.0**-9),
        (0x08, 2.0**-6),
        (0x38, 1.0),
        (0x39, 1.125),
        (0x7E, 448.0),
        (0xB8, -1.0),
        (0xFE, -448.0),
    ],
)
def test_codes_have_the_values_of_e4m3(code: int, value: float) -> None:
    assert e4m3_values()[code] == value


def test_two_codes_are_no_numbers_and_none_is_infinite() -> None:
    values = e4m3_values()
    assert np.flatnonzero(np.isnan(values)).tolist() == [0x7F, 0xFF]
    assert not np.isinf(values).any()


def test_every_value_is_multiplied_by_its_block_s_scale(tmp_path: Path) -> None:
    codes, scales = random_tensor()
    expected = np.array(
        [
            [e4m3_values()[codes[i, j]] * scales[i // BLOCK[0], j // BLOCK[1]] for j in range(12)]
            for i in range(10)
        ],
        dtype=np.float32,
    )
    with open_checkpoint(write(tmp_path / "c", codes, scales)) as checkpoint:
        weights = read_stored(checkpoint, "w")
        assert (weights.dtype, weights.shape) == ("F32", (ROWS, COLUMNS))
        assert weights.sources == ("w", "w_scale_inv")
        for start, stop in ((0, 10), (3, 4), (3, 9), (8, 10)):
            np.testing.assert_array_equal(weights.read(start, stop), expected[start:stop])


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    codes, scales = random_tensor()
    with (
        open_checkpoint(write(tmp_path / "c", codes, scales[:2])) as checkpoint,
        pytest.raises(BadTensor, match=r"must be \[3, 2\]"),
    ):
        read_stored(checkpoint, "w")


@pytest.mark.parametrize("size", [[4], "4x4", [0, 4], [4, 2.5]])
def test_block_sizes_that_make_no_sense_are_refused(size: object, tmp_path: Path) -> None:
    folder = write(tmp_path / "c", *random_tensor(), weight_block_size=size)
    with (
        open_checkpoint(folder) as checkpoint,
        pytest.raises(CheckpointError, match="weight_block_size"),
    ):
        read_stored(checkpoint, "w")
