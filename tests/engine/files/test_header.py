"""The header reader: what it reads, and what it says of broken files."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mofa_gguf.engine.errors import ModelFileError, OutOfMemory
from mofa_gguf.engine.files import cursor
from mofa_gguf.engine.files.header import ArraySummary, read_header
from mofa_gguf.engine.files.tensor_types import TYPES_BY_ID
from mofa_gguf.engine.files.vocabulary import read_strings
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama


def test_metadata_and_tensors_are_read(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    assert header.architecture == "llama"
    assert header.version == 3
    assert header.hyperparameter("context_length") == 256
    assert header.metadata["tokenizer.ggml.tokens"] == ArraySummary(8, 259)
    first = header.tensors[0]
    assert (first.name, first.shape, first.type.name) == ("token_embd.weight", (64, 259), "F32")
    assert header.n_parameters == sum(t.n_elements for t in header.tensors)
    assert header.n_tensor_bytes == 4 * header.n_parameters


def test_short_arrays_are_kept(tmp_path: Path) -> None:
    shape = TinyLlama(metadata={"tokenizer.ggml.eos_token_ids": [256, 258]})
    header = read_header(write_tiny_llama(tmp_path / "m.gguf", shape))
    assert header.metadata["tokenizer.ggml.eos_token_ids"] == [256, 258]


def test_real_vocabularies_are_read(shared_data: Path) -> None:
    files = sorted((shared_data / "vocab").glob("*.gguf"))
    assert files
    for file in files:
        assert read_header(file).metadata["tokenizer.ggml.model"] in ("gpt2", "llama", "bert")


def test_the_type_table_is_that_of_the_installed_library() -> None:
    import ctypes

    from mofa_gguf.engine.native import ggml

    library = ggml()
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    for number in range(43):
        block = library.ggml_blck_size(number)
        name = library.ggml_type_name(number).decode().upper()
        known = TYPES_BY_ID.get(number)
        if block == 0 or name in ("Q8_1", "Q8_K"):  # removed, or never in a file
            assert known is None
        else:
            assert known is not None
            assert (known.name, known.block_size) == (name, block)
            assert known.n_block_bytes == library.ggml_type_size(number)


def damaged(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "only 0 bytes"),
        (b"This is a text file, not a model.\n" * 9, "does not begin with the letters GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "claims 1152921504606846976 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "metadata entries"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62) + b"abcd" * 9, "ends inside"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99), "type 99"),
    ],
)
def test_foreign_and_damaged_files_are_refused(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    with pytest.raises(ModelFileError, match=problem):
        read_header(damaged(tmp_path, content))


@pytest.mark.parametrize("n_bytes", [2**12, 2**63 - 9, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("place", [0, 1, 298, 299])
def test_a_long_list_with_a_text_beyond_the_end_is_refused(
    tmp_path: Path, n_bytes: int, place: int
) -> None:
    """None of these lengths is believed, nor the sum of two of them."""
    head = struct.pack("<QcIIQ", 1, b"k", 9, 8, 300)
    texts = [struct.pack("<Q", 1) + b"a"] * 300
    texts[place] = struct.pack("<Q", n_bytes)
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + head + b"".join(texts)
    with pytest.raises(ModelFileError, match="it ends inside k"):
        read_header(damaged(tmp_path, content))


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path, tiny_model: Path) -> None:
    whole = tiny_model.read_bytes()
    for end in [*range(0, 200, 7), *range(200, len(whole), 4001), len(whole) - 1]:
        with pytest.raises(ModelFileError):
            read_header(damaged(tmp_path, whole[:end]))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file"):
        read_header(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match="is a folder"):
        read_header(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_nobody_may_ever_write_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="is no ordinary file"):
        read_header(tmp_path / "pipe.gguf")


def test_a_file_that_cannot_be_mapped_is_a_lack_of_memory(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a limit on address space; the file itself is sound."""

    def full(*_where: object, **_how: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    header = read_header(tiny_model)
    monkeypatch.setattr(cursor.mmap, "mmap", full)
    with pytest.raises(OutOfMemory, match=r"no room to map its .* MiB") as caught:
        read_header(tiny_model)
    assert caught.value.n_bytes == tiny_model.stat().st_size
    long = replace(header, metadata={"k": ArraySummary(8, 1)})
    with pytest.raises(OutOfMemory):
        read_strings(long, "k")


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_changed_bytes_give_a_header_or_an_error(
    tmp_path: Path, tiny_model: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(tiny_model.read_bytes())
    for place, value in changes:
        content[place] = value
    try:
        header = read_header(damaged(tmp_path, bytes(content)))
    except ModelFileError as error:
        assert str(error).count("\n") == 0
    else:
        assert header.n_tensor_bytes <= len(content)
