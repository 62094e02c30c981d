"""Formats of unknown templates, read off the difference that a call makes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mofa_gguf.chat import ChatTemplate
from mofa_gguf.chat.derive import derive
from tests.support.call_families import TOOLS, template

Make = Callable[[str], ChatTemplate]

ARGUMENTS = {"key": "value", "other": "thing"}
JSON = '{"key": "value", "other": "thing"}'


def openers_of(one: str, two: str, tail: str = "") -> tuple[str, ...] | None:
    found = derive(one, two, name="tool", arguments=ARGUMENTS, tail=tail)
    return None if found is None else found.openers


FIELDS = '<run tool><a k="key">value</a><a k="other">thing</a></run>'


@pytest.mark.parametrize(
    ("one", "two", "openers"),
    [
        (f"<c>tool {JSON}</c>", f"<c>tool {JSON}</c>\n<c>tool {JSON}</c>", ("<c>",)),
        (
            f"<all>\n<c>tool {JSON}</c>\n</all>",
            f"<all>\n<c>tool {JSON}</c>\n<c>tool {JSON}</c>\n</all>",
            ("<all>", "<c>"),
        ),
        (
            f'<c>{{"fn": "tool", "in": {JSON}}}</c>',
            f'<c>{{"fn": "tool", "in": {JSON}}}\n{{"fn": "tool", "in": {JSON}}}</c>',
            ("<c>",),
        ),
        (FIELDS, FIELDS + FIELDS, ("<run",)),
        (f"[[tool|{JSON}]]", "", None),  # too short a mark to be told from text
    ],
)
def test_what_begins_a_call(one: str, two: str, openers: tuple[str, ...] | None) -> None:
    assert openers_of(one, two) == openers


def test_plain_words_are_no_mark() -> None:
    assert openers_of(f"CALL tool WITH {JSON}", "") is None
    assert openers_of(f"tool {JSON}", "") is None
    assert openers_of(JSON, "") is None


def test_the_end_of_a_turn_is_no_part_of_a_call() -> None:
    found = derive(
        f"<run>tool {JSON}</run><|end|>\n",
        None,
        name="tool",
        arguments=ARGUMENTS,
        tail="<|end|>\n",
    )
    assert found is not None
    assert "<|end|>" not in found.markers


def test_marks_that_begin_or_end_alike_are_told_apart() -> None:
    chat = template("unknown_named_calls")
    forms = chat.forms("")
    assert [each.pattern for each in forms.triggers(TOOLS)] == ["<<calls>>", "<<call"]
    grammar = forms.calls(TOOLS)
    for text in ('"<<calls>><<call ', '"<<end>>"', '"<<done>>"'):
        assert text in grammar


def test_a_format_that_does_not_read_its_own_probes_is_not_used(make: Make) -> None:
    # The arguments stand in reverse order of their keys, each behind another mark.
    assert not make(
        "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}"
        "{{ m.role }}{{ m.content }}{% for c in m.tool_calls or [] %}<go>{{ c.function.name }}"
        "{% for k, v in c.function.arguments | dictsort %}<{{ loop.index }}>{{ v }}-{{ k }}"
        "{% endfor %}</go>{% endfor %}\n{% endfor %}"
    ).capabilities.tools
