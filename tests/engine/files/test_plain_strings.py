"""Lists of strings read all at once: as they are, or not at all."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files import vocabulary
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.vocabulary import check_vocabulary, plain_strings


def listed(texts: list[bytes]) -> bytes:
    """As they stand in a file."""
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


def one_by_one(data: bytes, count: int) -> list[bytes] | None:
    """What stands in ``data``; None if that is anything but ``count`` strings."""
    texts, at = [], 0
    for _ in range(count):
        if at + 8 > len(data):
            return None
        end = at + 8 + int.from_bytes(data[at : at + 8], "little")
        texts.append(data[at + 8 : end])
        at = end
    return texts if at == len(data) else None


def texts_of(
    values: st.SearchStrategy[int], least: int, most: int
) -> st.SearchStrategy[list[bytes]]:
    text = st.lists(values, min_size=least, max_size=most).map(bytes)
    return st.lists(text, min_size=1, max_size=30)


@given(texts_of(st.integers(1, 255), 1, 12))
def test_texts_without_zero_bytes_are_read(texts: list[bytes]) -> None:
    assert plain_strings(listed(texts), len(texts)) == texts


@pytest.mark.parametrize("n_bytes", [1, 2, 7, 8, 9, 255, 256, 257, 511, 512, 65535])
def test_texts_of_many_lengths_are_read(n_bytes: int) -> None:
    texts = [b"\x01" * n_bytes, b"a", b"\xff" * n_bytes, b"b" * n_bytes]
    assert plain_strings(listed(texts), len(texts)) == texts


@given(texts_of(st.sampled_from((0, 0, 0, 0, 0, 0, 1, 2, 8, 255)), 0, 40))
def test_texts_with_zero_bytes_are_left_to_others(texts: list[bytes]) -> None:
    plain = all(text and 0 not in text for text in texts)
    assert plain_strings(listed(texts), len(texts)) == (texts if plain else None)


@given(texts_of(st.integers(1, 3), 1, 9), st.data())
def test_what_is_read_is_what_stands_there(texts: list[bytes], draw: st.DataObject) -> None:
    data, count = bytearray(listed(texts)), len(texts)
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.sampled_from((0, 1, 2, 9)))
    del data[draw.draw(st.integers(len(data) // 2, len(data))) :]
    count += draw.draw(st.sampled_from((-1, 0, 0, 1)))
    assert plain_strings(bytes(data), count) in (None, one_by_one(bytes(data), count))


@pytest.mark.parametrize("count", [0, 1, 2, 2**63])
def test_counts_that_the_bytes_cannot_hold_give_nothing(count: int) -> None:
    assert plain_strings(b"", count) is None
    assert plain_strings(b"\x01" * 8, count) is None
    assert plain_strings(listed([b"a" * 65536]), count) is None


@pytest.mark.parametrize("text", [bytes(2**20), b"\x01" + bytes(9) * 2**17, b"\x01" * 2**20])
def test_long_texts_take_a_few_times_their_size(text: bytes) -> None:
    data = listed([text])
    tracemalloc.start()
    try:
        assert plain_strings(data, 1) is None
        assert tracemalloc.get_traced_memory()[1] < 5 * len(data)
    finally:
        tracemalloc.stop()


def write_vocabulary(path: Path, kind: bytes, texts: list[bytes]) -> Path:
    def pair(key: bytes, encoded: bytes) -> bytes:
        return listed([b"tokenizer.ggml." + key]) + encoded

    tokens = struct.pack("<IIQ", 9, 8, len(texts)) + listed(texts)
    pairs = pair(b"model", struct.pack("<I", 8) + listed([kind])) + pair(b"tokens", tokens)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pairs + bytes(64))
    return path


def test_texts_that_have_passed_are_not_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the same kind of vocabulary, in whatever file they stand; others are."""
    looks: list[int] = []

    def counted(data: bytes, count: int) -> list[bytes] | None:
        looks.append(count)
        return plain_strings(data, count)

    monkeypatch.setattr(vocabulary, "plain_strings", counted)
    texts = [b"%d!" % n for n in range(700)]
    for name in "ab":
        check_vocabulary(read_header(write_vocabulary(tmp_path / name, b"gpt2", texts)))
    assert looks == [700]
    check_vocabulary(read_header(write_vocabulary(tmp_path / "c", b"t5", texts)))
    check_vocabulary(read_header(write_vocabulary(tmp_path / "d", b"gpt2", texts[1:])))
    assert looks == [700, 700, 699]


def test_texts_that_are_refused_are_refused_again(tmp_path: Path) -> None:
    texts = [b"%d?" % n for n in range(700)]
    sound, twice = texts, [*texts, b"7?"]
    for name in "ab":
        check_vocabulary(read_header(write_vocabulary(tmp_path / name, b"gpt2", sound)))
        for kind, listing, problem in (
            (b"gpt2", twice, "7 and 700 are both '7\\?'"),
            (b"llama", sound, "no token for a space"),
            (b"rwkv", sound, "no token by itself"),
        ):
            path = write_vocabulary(tmp_path / name, kind, listing)
            with pytest.raises(ModelFileError, match=problem):
                check_vocabulary(read_header(path))
