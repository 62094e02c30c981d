"""The file's header, read back by the gguf package and by our own reader."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from mofa_gguf.convert.errors import ConversionError
from mofa_gguf.convert.gguf_format import ALIGNMENT, header_bytes
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.output import PartialFile
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import Plan, PlannedTensor
from mofa_gguf.convert.quantizations import QUANTIZATIONS
from mofa_gguf.convert.weights import computed
from mofa_gguf.convert.writer import Encoding, write_gguf
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME


def all_kinds() -> Metadata:
    metadata = Metadata()
    metadata.string("general.architecture", "llama")
    metadata.string("text", "naïve 日本 🙂 \0 end")
    metadata.uint32("u32", 2**32 - 1)
    metadata.uint64("u64", 2**64 - 1)
    metadata.float32("f32", 0.5)
    metadata.boolean("yes", True)
    metadata.boolean("no", False)
    metadata.strings("strings", ["a", b"\xff\xfe", ""])
    metadata.uint32s("u32s", [1, 2, 3])
    metadata.int32s("i32s", [-1, 0, 1])
    metadata.float32s("f32s", [0.25, -1.0])
    metadata.uint32s("none", [])
    return metadata


def write(path: Path, metadata: Metadata, tensors: tuple[PlannedTensor, ...]) -> None:
    part = Part(path, metadata, Plan(QUANTIZATIONS["F32"], tensors))
    with PartialFile(path) as output, Encoding(tensors, n_threads=1) as encoding:
        write_gguf(output, part, encoding)
        output.commit()


def test_every_kind_of_value_is_read_back_by_the_gguf_package(tmp_path: Path) -> None:
    write(tmp_path / "x.gguf", all_kinds(), ())
    fields = GGUFReader(tmp_path / "x.gguf").fields
    found = {
        name: fields[name].contents()
        for name in ("text", "u32", "u64", "f32", "yes", "no", "u32s", "i32s", "f32s")
    }
    assert found == {
        "text": "naïve 日本 🙂 \0 end",
        "u32": 2**32 - 1,
        "u64": 2**64 - 1,
        "f32": 0.5,
        "yes": True,
        "no": False,
        "u32s": [1, 2, 3],
        "i32s": [-1, 0, 1],
        "f32s": [0.25, -1.0],
    }
    strings = fields["strings"]
    assert [bytes(strings.parts[i]) for i in strings.data] == [b"a", b"\xff\xfe", b""]


def test_tensors_are_aligned_and_read_back(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(3, dtype=np.float32),
        "b": np.arange(10, dtype=np.float32).reshape(2, 5),
        "c": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    }
    tensors = tuple(
        PlannedTensor(name, computed(array), TYPES_BY_NAME["F32"]) for name, array in arrays.items()
    )
    path = tmp_path / "x.gguf"
    write(path, all_kinds(), tensors)
    header = read_header(path)
    assert header.data_offset % ALIGNMENT == 0
    assert path.stat().st_size % ALIGNMENT == 0
    assert header.n_bytes == path.stat().st_size
    for tensor in GGUFReader(path).tensors:
        assert tensor.data_offset % ALIGNMENT == 0
        assert tensor.data.tolist() == arrays[tensor.name].tolist()


@pytest.mark.parametrize("odd", ["", "\0", "a\0b", b"\xff", b"\0", "x" * 256, "日" * 70000])
@pytest.mark.parametrize("place", [0, 1, 1999])
def test_long_lists_of_texts_stand_in_the_file_as_short_ones_do(
    odd: str | bytes, place: int
) -> None:
    texts: list[str | bytes] = [f"▁{n}é" * (n % 30) for n in range(2000)]
    texts[place] = odd
    expected = bytearray()
    for text in texts:
        data = text if isinstance(text, bytes) else text.encode()
        expected += struct.pack("<Q", len(data)) + data
    metadata = Metadata()
    metadata.strings("texts", texts)
    value = metadata.get("texts")
    assert value is not None
    assert value.form == struct.pack("<IIQ", 9, 8, 2000) + expected


def test_text_that_is_no_unicode_is_refused_among_many_too() -> None:
    metadata = Metadata()
    metadata.strings("tokenizer.ggml.merges", [*map(str, range(2000)), "\ud800"])
    with pytest.raises(ConversionError, match=r"merges cannot be .* in position 0"):
        header_bytes(metadata, ())


@pytest.mark.parametrize("text", ["\ud800", "half \udfff"])
def test_text_that_is_no_unicode_is_refused_with_its_key(text: str) -> None:
    metadata = Metadata()
    metadata.string("tokenizer.chat_template", text)
    with pytest.raises(ConversionError, match=r"tokenizer\.chat_template"):
        header_bytes(metadata, ())


def test_a_number_beyond_its_type_is_refused_with_its_key() -> None:
    metadata = Metadata()
    metadata.int32s("tokenizer.ggml.token_type", [2**40])
    with pytest.raises(ConversionError, match="token_type"):
        header_bytes(metadata, ())
