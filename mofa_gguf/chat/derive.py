"""A tool-call format read off a template's own rendering of calls.

For templates whose format is none of the known ones: the rendering of a message with one call and
with two tells what stands in front of the name, between name and arguments, behind them and
between calls. Only formats that begin with a mark of their own are derived; words could stand in
any text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from os.path import commonprefix  # character by character, which is what is wanted here

from mofa_gguf.chat.formats import ToolCallFormat
from mofa_gguf.chat.formats.field_layout import Fields, named_fields
from mofa_gguf.chat.formats.layout import Layout, first_word, named_json
from mofa_gguf.chat.formats.listed import keyed_json

_MARK = re.compile(r"[<\[{|#@`]")
_MARK_START = re.compile(r"[<\[{|#@`/]+$")
_NAME = "derived"


def derive(
    one: str, two: str | None, *, name: str, arguments: Mapping[str, str], tail: str = ""
) -> ToolCallFormat | None:
    """A format for calls that look like these, None when none of the known kinds does.

    ``one`` and ``two`` are answers with one call and with two, both of tool ``name`` with these
    ``arguments`` (at least two texts). ``tail`` is what stands behind an answer without calls.
    """
    tail = tail.rstrip()
    one, two = (_without(text, tail) for text in (one, two or ""))
    at = _arguments_at(one, arguments)
    if at is None:
        return _derive_fields(one, two, name, arguments)
    start, end = at
    named = one.rfind(name, 0, start)
    if named < 0:
        return None
    head, middle, rest = one[:named], one[named + len(name) : start], one[end:]
    layout = _split(head, middle, rest, two, name)
    if layout is None or not _begins_with_mark(layout):
        return None
    key = re.search(r'"(\w+)"\s*:\s*"$', layout.open)
    if key is None:
        return named_json(_NAME, layout)
    arguments_key = re.fullmatch(r'"\s*,.*"(\w+)"\s*:\s*', layout.middle, re.DOTALL)
    if arguments_key is None:
        return None
    return keyed_json(_NAME, layout, name_key=key[1], arguments_key=arguments_key[1])


def _without(text: str, tail: str) -> str:
    text = text.rstrip()
    return text.removesuffix(tail) if tail else text


def _arguments_at(text: str, arguments: Mapping[str, str]) -> tuple[int, int] | None:
    """Where the arguments stand as a JSON object."""
    for found in re.finditer(r"\{", text):
        try:
            value, end = json.JSONDecoder().raw_decode(text, found.start())
        except ValueError:
            continue
        if value == arguments:
            return found.start(), end
    return None


def _split(head: str, middle: str, rest: str, two: str, name: str) -> Layout | None:
    """Parts what surrounds all calls from what surrounds each, with the help of a second call."""
    json_name = head.endswith('"') and middle.startswith('"')
    first, second = two.find(name), two.rfind(name)
    if not two or first == second or not two.startswith(head):
        return Layout(open=head, middle=middle, close=rest, json_name=json_name)
    # What stands behind the first call's arguments, up to the second call's name.
    length = len(two) - len(rest) - second
    inner = two[first + length : second]
    close = commonprefix([rest, inner])  # noqa: RUF071
    if close != rest:
        # Two marks may begin alike.
        close = _MARK_START.sub("", close)
    between_and_open = inner[len(close) :]
    opening = _common_suffix(head, between_and_open)
    return Layout(
        begin=head[: len(head) - len(opening)],
        open=opening,
        middle=middle,
        close=close,
        between=between_and_open[: len(between_and_open) - len(opening)],
        end=rest[len(close) :],
        json_name=json_name,
    )


def _derive_fields(
    one: str, two: str, name: str, arguments: Mapping[str, str]
) -> ToolCallFormat | None:
    """Calls whose arguments stand each for itself, as text."""
    (key, value), (other_key, other_value) = list(arguments.items())[:2]
    positions, at = [], 0
    for word in (name, key, value, other_key, other_value):
        at = one.find(word, at)
        if at < 0:
            return None
        positions.append((at, at + len(word)))
        at += len(word)
    (n0, n1), (k0, k1), (v0, v1), (l0, l1), (w0, w1) = positions
    middle = one[k1:v0]
    if not middle or one[l1:w0] != middle:
        return None
    before, between = one[n1:k0], one[v1:l0]
    opening = _common_suffix(before, between)
    ending = between[: len(between) - len(opening)]
    rest = one[w1:]
    if not opening.strip() or not ending.strip() or not rest.startswith(ending):
        return None
    head_middle = before[: len(before) - len(opening)]
    layout = _split(one[:n0], head_middle, rest[len(ending) :], two, name)
    if layout is None or not _begins_with_mark(layout):
        return None
    if not first_word(layout.close):
        return None
    return named_fields(_NAME, layout, Fields(open=opening, middle=middle, close=ending))


def _begins_with_mark(layout: Layout) -> bool:
    opener = layout.openers[0] if layout.openers else ""
    return len(opener) > 2 and _MARK.search(opener) is not None and not opener.startswith('{"')


def _common_suffix(one: str, other: str) -> str:
    """The end that two texts share, from the beginning of a mark on."""
    suffix = commonprefix([one[::-1], other[::-1]])[::-1]  # noqa: RUF071
    if suffix in (one, other):
        return suffix
    # Marks may end alike.
    start = _MARK.search(suffix)
    return suffix[start.start() :] if start else suffix
