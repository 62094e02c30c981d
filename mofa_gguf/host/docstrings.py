"""What a function's docstring says of the function and of its arguments.

Three habits are read: Google's (an ``Args:`` section of indented ``name (type): text``), NumPy's
(``Parameters`` underlined with dashes, then ``name : type`` and indented text) and reST's
(``:param type name: text``). What follows none of them is all description.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_ARGUMENTS = frozenset({"args", "arguments", "parameters", "params", "keyword args"})
_SECTIONS = _ARGUMENTS | frozenset(
    {
        "attributes",
        "example",
        "examples",
        "keyword arguments",
        "note",
        "notes",
        "other parameters",
        "raises",
        "references",
        "return",
        "returns",
        "see also",
        "todo",
        "usage",
        "warning",
        "warnings",
        "warns",
        "yield",
        "yields",
    }
)
_ARGUMENT_SECTIONS = _ARGUMENTS | {"keyword arguments", "other parameters"}

_GOOGLE_HEADING = re.compile(r"^([A-Za-z][A-Za-z ]*):\s*$")
_GOOGLE_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_NUMPY_RULE = re.compile(r"^-{3,}\s*$")
_NUMPY_ENTRY = re.compile(r"^(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_REST_FIELD = re.compile(r"^:(\w+)(?:\s+([^:]*))?:\s*(.*)$")
_REST_ARGUMENTS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword"})


@dataclass(frozen=True)
class Docstring:
    """A docstring taken apart: the description before any section, and the arguments' texts."""

    description: str = ""
    arguments: dict[str, str] = field(default_factory=dict)


def parse_docstring(text: str | None) -> Docstring:
    """Read a docstring; never fails, whatever it holds."""
    lines = inspect.cleandoc(text or "").splitlines()
    description: list[str] = []
    arguments: dict[str, str] = {}
    n = 0
    while n < len(lines):
        heading, n_heading_lines = _heading(lines, n)
        if heading is not None:
            end = _end_of_section(lines, n + n_heading_lines, indented=n_heading_lines == 1)
            if heading in _ARGUMENT_SECTIONS:
                body = lines[n + n_heading_lines : end]
                read = _read_google if n_heading_lines == 1 else _read_numpy
                arguments.update(read(body))
            n = end
        elif match := _REST_FIELD.match(lines[n]):
            end = _end_of_section(lines, n + 1, indented=True)
            if match[1] in _REST_ARGUMENTS and match[2]:
                name = match[2].split()[-1].lstrip("*")
                arguments[name] = _joined([match[3], *lines[n + 1 : end]])
            n = end
        else:
            description.append(lines[n])
            n += 1
    return Docstring(_paragraphs(description), arguments)


def _heading(lines: list[str], n: int) -> tuple[str | None, int]:
    """The section that begins at line ``n``, and how many lines its heading has."""
    following = lines[n + 1] if n + 1 < len(lines) else ""
    name = lines[n].strip().lower()
    if name in _SECTIONS and _NUMPY_RULE.match(following):
        return name, 2
    match = _GOOGLE_HEADING.match(lines[n])
    if match and match[1].lower() in _SECTIONS:
        return match[1].lower(), 1
    return None, 0


def _end_of_section(lines: list[str], n: int, *, indented: bool) -> int:
    """The line after a section's body: the first that is not indented, or the next heading."""
    while n < len(lines):
        if indented and lines[n].strip() and not lines[n][0].isspace():
            break
        if not indented and _heading(lines, n)[0] is not None:
            break
        n += 1
    return n


def _read_google(body: list[str]) -> dict[str, str]:
    margin = min((_indent(line) for line in body if line.strip()), default=0)
    return _read_entries(((line[margin:]) for line in body), _GOOGLE_ENTRY)


def _read_numpy(body: list[str]) -> dict[str, str]:
    return _read_entries(body, _NUMPY_ENTRY)


def _read_entries(lines: Iterable[str], entry: re.Pattern[str]) -> dict[str, str]:
    """Entries begin at the margin; indented lines go on with the entry before them."""
    texts: dict[str, list[str]] = {}
    names: list[str] = []
    for line in lines:
        if line.strip() and not line[0].isspace():
            match = entry.match(line)
            names = re.split(r"\s*,\s*", match[1]) if match else []
            text = match[2] if match and entry.groups > 1 else ""
            texts.update({name.lstrip("*"): [text] for name in names})
        else:
            for name in names:
                texts[name.lstrip("*")].append(line)
    return {name: _joined(parts) for name, parts in texts.items()}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: Iterable[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())


def _paragraphs(lines: list[str]) -> str:
    """Lines joined within paragraphs, paragraphs apart by an empty line."""
    paragraphs = "\n".join(line.strip() for line in lines).split("\n\n")
    return "\n\n".join(text for p in paragraphs if (text := _joined(p.splitlines())))
