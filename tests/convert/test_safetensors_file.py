"""Headers are checked before anything believes them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.convert.errors import BadTensor, CheckpointError
from mofa_gguf.convert.safetensors_file import MAX_HEADER_BYTES, SafetensorsFile
from tests.convert.makers import raw_safetensors, safetensors_bytes

GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = np.arange(4, dtype=np.float32).tobytes()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_tensors_come_as_views_in_their_shape(tmp_path: Path) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.arange(4, dtype=np.float16),
        "c": np.array([0x3F80], dtype=np.uint16),
    }
    file = SafetensorsFile(write(tmp_path / "x.safetensors", safetensors_bytes(arrays)))
    for name, expected in arrays.items():
        got = file.array(name)
        assert got.dtype == expected.dtype
        assert got.tolist() == expected.tolist()
        assert not got.flags.writeable
        file.release(name)
    assert file.tensors["c"].dtype == "BF16"
    file.close()
    file.close()


def test_data_that_starts_at_an_odd_byte_is_read(tmp_path: Path) -> None:
    header = json.dumps({"a": GOOD}).encode()
    header += b" " * (1 - len(header) % 2)
    file = SafetensorsFile(write(tmp_path / "x", raw_safetensors(header, DATA)))
    assert file.array("a").tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_integer_tensors_are_no_weights(tmp_path: Path) -> None:
    content = safetensors_bytes({"ids": np.arange(3, dtype=np.int64)})
    file = SafetensorsFile(write(tmp_path / "x", content))
    with pytest.raises(BadTensor, match="I64"):
        file.array("ids")


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {**GOOD, **changes}}


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no safetensors file"),
    "shorter than its length field": (b"\x10\x00\x00", "no safetensors file"),
    "header longer than the file": (struct.pack("<Q", 2**40) + b"{}", "truncated"),
    "header longer than 2^63": (struct.pack("<Q", 2**64 - 1) + b"{}", "truncated"),
    "no JSON": (raw_safetensors(b"{nope", b""), "no valid JSON"),
    "no UTF-8": (raw_safetensors(b"\xff\xfe", b""), "no valid JSON"),
    "a list": (raw_safetensors([], b""), "no JSON object"),
    "nested without end": (raw_safetensors(b"[" * 100_000, b""), "nested"),
    "a number with a million digits": (raw_safetensors(b"1" * 10**6, b""), "no valid JSON"),
    "the same name twice": (raw_safetensors(b'{"a": 1, "a": 2}', b""), "twice"),
    "no description": (raw_safetensors({"a": 3}, b""), "no description"),
    "unknown dtype": (raw_safetensors(entry(dtype="Q4"), DATA), "unknown type"),
    "dtype of another kind": (raw_safetensors(entry(dtype=["F32"]), DATA), "unknown type"),
    "negative size": (raw_safetensors(entry(shape=[-2, -2]), DATA), "impossible shape"),
    "fractional size": (raw_safetensors(entry(shape=[2.0, 2]), DATA), "impossible shape"),
    "too many dimensions": (raw_safetensors(entry(shape=[1] * 99), DATA), "impossible shape"),
    "shape larger than the span": (raw_safetensors(entry(shape=[2, 3]), DATA), "takes 24"),
    "huge shape": (raw_safetensors(entry(shape=[2**62, 2**62]), DATA), "spans 16"),
    "offsets backwards": (raw_safetensors(entry(data_offsets=[16, 0]), DATA), "spans -16"),
    "negative offset": (raw_safetensors(entry(data_offsets=[-16, 0]), DATA), "impossible offsets"),
    "one offset": (raw_safetensors(entry(data_offsets=[16]), DATA), "impossible offsets"),
    "past the end": (raw_safetensors({"a": GOOD}, DATA[:12]), "truncated"),
    "a gap before": (raw_safetensors(entry(data_offsets=[4, 20]), DATA + b"gaps"), "gap"),
    "data behind": (raw_safetensors({"a": GOOD}, DATA + b"more"), "4 bytes behind"),
    "overlap": (raw_safetensors({"a": GOOD, "b": GOOD}, DATA), "overlaps"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    content, reason = BROKEN[case]
    path = write(tmp_path / "model.safetensors", content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        SafetensorsFile(path)
    assert caught.value.path == path
    assert len(str(caught.value)) < 400


def test_an_enormous_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 100)  # sparse
    with pytest.raises(CheckpointError, match="at most"):
        SafetensorsFile(path)


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no regular file"):
        SafetensorsFile(tmp_path)


SOUND = safetensors_bytes(
    {
        "model.embed_tokens.weight": np.zeros((4, 3), dtype=np.float32),
        "model.norm.weight": np.zeros(5, dtype=np.float16),
    }
)
mutations = st.lists(
    st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), min_size=1, max_size=6
)


@settings(max_examples=150, deadline=None)
@given(mutations=mutations, cut=st.integers(0, len(SOUND)))
def test_damaged_files_open_or_are_refused_and_nothing_else(
    mutations: list[tuple[int, int]], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(SOUND)
    for position, value in mutations:
        data[position] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(data[: cut or None])
    try:
        file = SafetensorsFile(path)
    except CheckpointError:
        return
    for name, tensor in file.tensors.items():
        if tensor.dtype in ("F32", "F16", "BF16", "F64"):
            assert file.array(name).nbytes == tensor.n_bytes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "F4", "X"]) | json_values,
        "shape": st.lists(st.integers(-1, 2**40), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | json_values,
    }
)


@settings(max_examples=150, deadline=None)
@given(header=st.dictionaries(st.text(max_size=5), entries | json_values, max_size=4))
def test_invented_headers_open_or_are_refused_and_nothing_else(
    header: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "invented.safetensors"
    path.write_bytes(raw_safetensors(header, bytes(64)))
    try:
        file = SafetensorsFile(path)
    except CheckpointError:
        return
    assert sum(tensor.n_bytes for tensor in file.tensors.values()) == 64
