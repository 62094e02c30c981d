"""Importance matrices are read, and used, as llama.cpp's quantize tool does."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest

from mofa_gguf.convert.errors import ImportanceError
from mofa_gguf.convert.importance import Importance, read_importance

Arrays = Mapping[str, npt.NDArray[np.float32]]

SUMS = np.array([[4, 9, 16, 25], [1, 2, 3, 4], [7, 7, 7, 7]], dtype=np.float32)
COUNTS = np.array([[2], [4], [0]], dtype=np.float32)


def write_gguf(path: Path, tensors: Arrays, **keys: object) -> Path:
    """An importance matrix as llama-imatrix writes it."""
    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].clear()
    writer.add_string("general.type", "imatrix")
    values = {"datasets": ["wiki.txt", "code.txt"], "chunk_count": 7, "chunk_size": 512, **keys}
    for key, value in values.items():
        if isinstance(value, list):
            writer.add_array(f"imatrix.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"imatrix.{key}", value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def legacy_bytes(entries: Mapping[str, tuple[int, list[float]]], tail: bytes = b"") -> bytes:
    """The older form: counts, names, numbers of calls, values."""
    parts = [struct.pack("<i", len(entries))]
    for name, (n_calls, values) in entries.items():
        parts.append(struct.pack("<i", len(name)) + name.encode())
        parts.append(struct.pack(f"<ii{len(values)}f", n_calls, len(values), *values))
    return b"".join(parts) + tail


def test_sums_are_divided_by_each_experts_own_count(tmp_path: Path) -> None:
    tensors = {"blk.0.ffn_up_exps.weight.in_sum2": SUMS, "blk.0.ffn_up_exps.weight.counts": COUNTS}
    found = read_importance(write_gguf(tmp_path / "i.gguf", tensors))
    expected = [[2, 4.5, 8, 12.5], [0.25, 0.5, 0.75, 1], [1, 1, 1, 1]]  # never asked: all alike
    assert list(found.entries) == ["blk.0.ffn_up_exps.weight"]
    weights = found.of("blk.0.ffn_up_exps.weight", (3, 2, 4))
    assert weights is not None
    assert weights.tolist() == expected
    assert (found.datasets, found.n_chunks) == (("wiki.txt", "code.txt"), 7)


def test_the_older_form_holds_means_times_calls(tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    tail = struct.pack("<ii", 9, 4) + b"text"
    path.write_bytes(legacy_bytes({"a": (4, [4.0, 8.0]), "b": (0, [3.0])}, tail))
    found = read_importance(path)
    assert {name: values.tolist() for name, values in found.entries.items()} == {
        "a": [1.0, 2.0],
        "b": [3.0],
    }
    assert (found.datasets, found.n_chunks) == (("text",), 9)
    path.write_bytes(legacy_bytes({"a": (1, [4.0])}))
    assert read_importance(path).n_chunks == 0


def test_what_was_used_is_said_with_llama_cpps_keys(tmp_path: Path) -> None:
    tensors = {"a.in_sum2": SUMS[:1], "a.counts": COUNTS[:1]}
    found = read_importance(write_gguf(tmp_path / "i.gguf", tensors, datasets=["x" * 200]))
    values = {key: value.data for key, value in found.metadata().items()}
    assert values == {
        "quantize.imatrix.file": "i.gguf",
        "quantize.imatrix.dataset": "x" * 127,
        "quantize.imatrix.entries_count": 1,
        "quantize.imatrix.chunks_count": 7,
    }
    other = Importance(found.path, {"a": found.entries["a"] + 1})
    assert len({found.fingerprint(), other.fingerprint()}) == 2


def test_weights_of_another_size_are_refused_but_for_embeddings(tmp_path: Path) -> None:
    path = tmp_path / "i.gguf"
    two = np.ones(2, np.float32)
    found = Importance(path, {"blk.0.attn_q.weight": two, "token_embd.weight": two})
    assert found.of("token_embd.weight", (8, 4)) is None
    assert found.of("blk.0.attn_k.weight", (8, 4)) is None
    with pytest.raises(ImportanceError, match=r"2 weights for 'blk\.0\.attn_q\.weight'.* needs 4"):
        found.of("blk.0.attn_q.weight", (8, 4))


def pair(sums: npt.NDArray[np.float32], counts: npt.NDArray[np.float32]) -> Arrays:
    return {"a.in_sum2": sums, "a.counts": counts}


BROKEN_GGUF: dict[str, tuple[Arrays, str]] = {
    "no counts": ({"a.in_sum2": SUMS}, "do not fit"),
    "no sums": ({"a.counts": COUNTS}, "do not fit"),
    "other counts": (pair(SUMS, np.ones((5, 1), np.float32)), "do not fit"),
    "NaN": (pair(SUMS * np.float32("nan"), COUNTS), "weights that cannot be"),
    "infinite": (pair(SUMS * np.float32("inf"), COUNTS), "weights that cannot be"),
    "negative": (pair(-SUMS, COUNTS), "weights that cannot be"),
    "too large for the kernels": (pair(SUMS * np.float32(1e37), COUNTS), "weights that cannot be"),
    "NaN counts": (pair(SUMS, COUNTS * np.float32("nan")), "no numbers"),
    "half precision": ({"a.in_sum2": SUMS.astype(np.float16), "a.counts": COUNTS}, "not F32"),
    "no tensors of its kind": ({"a.weight": SUMS}, "no weights"),
}


@pytest.mark.parametrize("name", BROKEN_GGUF)
def test_damaged_matrices_are_one_line(name: str, tmp_path: Path) -> None:
    tensors, words = BROKEN_GGUF[name]
    with pytest.raises(ImportanceError, match=words) as caught:
        read_importance(write_gguf(tmp_path / "i.gguf", tensors))
    assert "\n" not in str(caught.value)


def test_a_model_is_no_importance_matrix(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "i.gguf", pair(SUMS, COUNTS), datasets=None)
    with pytest.raises(ImportanceError, match=r"lacks imatrix\.datasets"):
        read_importance(path)


WHOLE = legacy_bytes({"blk.0.attn_q.weight": (1, [1.0, 2.0])}, struct.pack("<ii", 9, 4) + b"text")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"this is a text, and no importance matrix " * 10,
        struct.pack("<i", 0),
        struct.pack("<i", -1) * 100,
        struct.pack("<i", 2**31 - 1) * 100,
        legacy_bytes({"a": (1, [])}),
        legacy_bytes({"a" * 2000: (1, [1.0])}),
        legacy_bytes({"a": (1, [float("nan")])}),
        WHOLE[:-30],
        WHOLE[:9],
    ],
)
def test_files_that_are_none_are_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(data)
    with pytest.raises(ImportanceError) as caught:
        read_importance(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImportanceError, match="No such file"):
        read_importance(tmp_path / "i.dat")


def test_no_cut_of_a_file_does_more_than_raise_the_error(tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        try:
            found = read_importance(path)
        except ImportanceError:
            continue
        # The trailer may be missing, or cut.
        assert found.entries["blk.0.attn_q.weight"].tolist() == [1.0, 2.0]
