"""Bytes to text: no half character, no partial stop string."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.tokens.text import TextStream


def stream(data: bytes, cuts: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """Feed ``data`` in pieces; the deltas and all text together."""
    text = TextStream(stop)
    places = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    deltas = [text.feed(data[a:b]) for a, b in pairwise(places)]
    deltas.append(text.finish())
    return deltas, "".join(deltas)


@given(st.text(), st.lists(st.integers(0, 200)))
def test_text_comes_out_whole_however_its_bytes_are_cut(text: str, cuts: list[int]) -> None:
    deltas, joined = stream(text.encode("utf-8"), cuts)
    assert joined == text
    assert all("\ufffd" not in delta for delta in deltas) or "\ufffd" in text


@given(st.text("ab<|>", max_size=30), st.lists(st.integers(0, 40)))
def test_text_ends_before_the_first_stop_string(text: str, cuts: list[int]) -> None:
    stops = ("<|b|>", "aab")
    ends = [at for s in stops if (at := text.find(s)) >= 0]
    _, joined = stream(text.encode(), cuts, stops)
    assert joined == text[: min(ends, default=len(text))]


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=8))
def test_nothing_that_a_later_stop_string_takes_back_gets_out(pieces: list[str]) -> None:
    stop = "aba"
    text = TextStream((stop,))
    fed, out = "", ""
    for piece in pieces:
        fed += piece
        out += text.feed(piece.encode())
        for ending in ("", "a", "ba", "aba"):
            assert (fed + ending).split(stop)[0].startswith(out)


def test_the_stop_string_that_ended_the_text_is_named() -> None:
    text = TextStream(("END", "###"))
    assert text.feed(b"one ##") == "one "
    assert text.feed(b"# two") == ""
    assert text.stopped_by == "###"
    assert text.feed(b"more") == ""
    assert text.finish() == ""


def test_a_stop_string_that_never_completes_is_given_back() -> None:
    text = TextStream(("STOP",))
    assert text.feed(b"go ST") == "go "
    assert text.finish() == "ST"


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"\xff", "\ufffd"), (b"a\xc3", "a\ufffd"), (b"\xf0\x9f\x98\x80", "\U0001f600")],
)
def test_broken_utf8_becomes_a_replacement_character(data: bytes, expected: str) -> None:
    assert stream(data, [])[1] == expected


def test_of_two_stop_strings_at_one_place_the_longer_counts() -> None:
    text = TextStream(("</", "</end>"))
    assert text.feed(b"x</end>") == "x"
    assert text.stopped_by == "</end>"
