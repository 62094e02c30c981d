"""Four-bit blocks are put into ggml's layout without changing a value."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from mofa_gguf.convert import convert
from mofa_gguf.convert.checkpoint import Checkpoint, open_checkpoint
from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.mxfp4 import read_mxfp4
from tests.convert.makers import PARITY, raw_safetensors

SHAPE = (2, 3, 2)  # experts, rows, blocks a row
# E2M1, OCP Microscaling Formats 1.0, table 5.
VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


def write(
    folder: Path, blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8] | None
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps({"quantization_config": {"quant_method": "mxfp4"}})
    )
    header: dict[str, object] = {}
    data = b""
    for name, array in (("w_blocks", blocks), ("w_scales", scales)):
        if array is not None:
            raw = array.tobytes()
            offsets = [len(data), len(data) + len(raw)]
            header[name] = {"dtype": "U8", "shape": list(array.shape), "data_offsets": offsets}
            data += raw
    (folder / "model.safetensors").write_bytes(raw_safetensors(header, data))
    return folder


def random_blocks() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, size=(*SHAPE, 16), dtype=np.uint8)
    return blocks, random.integers(100, 140, size=SHAPE, dtype=np.uint8)


def values_of(
    blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """By the format's definition: the lower half of a byte comes first."""
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*SHAPE, 32)
    values = VALUES[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]
    return values.reshape(SHAPE[0], SHAPE[1], -1).astype(np.float32)


def test_blocks_mean_the_same_in_ggml_s_layout(tmp_path: Path) -> None:
    blocks, scales = random_blocks()
    with open_checkpoint(write(tmp_path / "c", blocks, scales)) as checkpoint:
        weights = read_mxfp4(checkpoint, "w_blocks", "w_scales")
        assert (weights.shape, weights.dtype) == ((2, 3, 64), "MXFP4")
        for start, stop in ((0, 6), (2, 5)):
            ours = dequantize(weights.read(start, stop), GGMLQuantizationType.MXFP4)
            expected = values_of(blocks, scales).reshape(6, 64)[start:stop]
            np.testing.assert_array_equal(ours, expected)


def refuse(checkpoint: Checkpoint, match: str) -> None:
    with pytest.raises(BadTensor, match=match):
        read_mxfp4(checkpoint, "w_blocks", "w_scales").read(0, 6)


def test_scales_that_are_missing_or_do_not_fit_or_are_no_numbers_are_refused(
    tmp_path: Path,
) -> None:
    blocks, scales = random_blocks()
    with open_checkpoint(write(tmp_path / "a", blocks, None)) as checkpoint:
        refuse(checkpoint, "is missing")
    with open_checkpoint(write(tmp_path / "b", blocks, scales[:1])) as checkpoint:
        refuse(checkpoint, "does not fit")
    scales[1, 2, 0] = 0xFF
    with open_checkpoint(write(tmp_path / "c", blocks, scales)) as checkpoint:
        refuse(checkpoint, "NaN")


@pytest.mark.parametrize("quantization", ["F16", "Q8_0", "Q4_K_M"])
def test_blocks_are_kept_in_every_quantization(quantization: str, tmp_path: Path) -> None:
    report = convert(
        PARITY / "gpt-oss-mxfp4", tmp_path / "m.gguf", quantization, threads=1, dry_run=True
    )
    types = {tensor.target_type for tensor in report.tensors if "exps.weight" in tensor.name}
    assert types == {"MXFP4"}
    assert "F32" in {tensor.target_type for tensor in report.tensors}
