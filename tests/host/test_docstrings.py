"""Docstrings of the usual habits, taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.host.docstrings import Docstring, parse_docstring

GOOGLE = """Look up the weather.

    It may rain,
    or not.

    Args:
        city (str): The city,
            with its country.
        unit: celsius or fahrenheit: either will do
        **more: anything

    Returns:
        dict: what it is like.

    Example:
        city: not an argument
    """

NUMPY = """Look up the weather.

    It may rain,
    or not.

    Parameters
    ----------
    city : str
        The city,
        with its country.
    unit : {"celsius", "fahrenheit"}, optional
        celsius or fahrenheit: either will do
    **more
        anything

    Returns
    -------
    dict
        what it is like.
    """

REST = """Look up the weather.

    It may rain,
    or not.

    :param city: The city,
        with its country.
    :param str unit: celsius or fahrenheit: either will do
    :param more: anything
    :type city: str
    :returns: what it is like.
    :raises ValueError: never
    """


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, REST], ids=["google", "numpy", "rest"])
def test_three_habits_say_the_same(text: str) -> None:
    assert parse_docstring(text) == Docstring(
        "Look up the weather.\n\nIt may rain, or not.",
        {
            "city": "The city, with its country.",
            "unit": "celsius or fahrenheit: either will do",
            "more": "anything",
        },
    )


@pytest.mark.parametrize(
    ("text", "description"),
    [
        (None, ""),
        ("", ""),
        ("   \n  ", ""),
        ("One line.", "One line."),
        ("Note: this is a sentence.", "Note: this is a sentence."),
        ("What it takes:\n\n    indented", "What it takes:\n\nindented"),
        ("Args are described elsewhere.", "Args are described elsewhere."),
    ],
)
def test_what_follows_no_habit_is_all_description(text: str | None, description: str) -> None:
    assert parse_docstring(text) == Docstring(description, {})


def test_sections_may_come_without_a_description_or_be_empty() -> None:
    assert parse_docstring("\n    Args:\n        a: one\n    ") == Docstring("", {"a": "one"})
    assert parse_docstring("Args:") == Docstring("", {})
    assert parse_docstring("Do.\n\nParameters\n----------") == Docstring("Do.", {})


def test_several_numpy_parameters_may_share_a_text() -> None:
    text = "Parameters\n----------\nx, y : int\n    A place."
    assert parse_docstring(text).arguments == {"x": "A place.", "y": "A place."}


def test_text_after_an_indented_section_goes_on_with_the_description() -> None:
    assert parse_docstring("Do.\n\nArgs:\n    a: one\n\nThe end.") == Docstring(
        "Do.\n\nThe end.", {"a": "one"}
    )


@given(st.lists(st.sampled_from(["Args:", "  a: b", "----", "Parameters", ":param x: y", "", "t"])))
def test_nothing_it_reads_makes_it_fail(lines: list[str]) -> None:
    parsed = parse_docstring("\n".join(lines))
    assert all(name.isidentifier() for name in parsed.arguments)
