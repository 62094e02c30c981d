"""Where commands write: tables for people, JSON for programs, logs to standard error."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Without a terminal a table has no width to respect, and nothing should be cut.
_NO_TERMINAL_WIDTH = 1_000


def console(*, error: bool = False, markup: bool = False) -> Console:
    """A console on standard output, or on standard error.

    With ``markup``, what is printed may have rich's; names of files and tensors have brackets.
    """
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _NO_TERMINAL_WIDTH
    return Console(
        file=stream,
        width=width,
        highlight=False,
        markup=markup,
        emoji=False,
        soft_wrap=not stream.isatty(),
    )


def show(out: Console, table: Table) -> None:
    """Print a table; without a terminal, without the blanks that fill up its last column."""
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=out.file)


def print_json(value: Any) -> None:
    """Write a value as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_line(value: Any) -> None:
    """Write a value as one line of JSON."""
    print(json.dumps(value, ensure_ascii=False))


def show_facts(rows: list[tuple[str, str]]) -> None:
    """Print names and what they are; without a terminal as plain lines, at once."""
    if sys.stdout.isatty():
        console().print(facts_table(rows))
        return
    # What draws tables takes longer to import than a small model to be written.
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}".rstrip().replace("\n", "\n" + " " * (width + 2)))


def facts_table(rows: list[tuple[str, str]]) -> Table:
    """A table of names and what they are."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def columns_table(*titles: str, right: tuple[str, ...] = ()) -> Table:
    """A table with titled columns; those in ``right`` hold numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return table


def size(n_bytes: float) -> str:
    """Bytes for people, in powers of 1000: "4.5 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def count(number: float) -> str:
    """A number for people: "3.9 M", "7.2 B"."""
    for unit in ("", " K", " M", " B"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000
    return f"{number:.1f} T"


def write_any_text() -> None:
    """Let standard output show what its encoding lacks as a question mark; JSON stays valid."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def set_up_logging(*, verbose: bool) -> None:
    """Send the library's log to standard error: warnings, or everything."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("mofa_gguf")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if not verbose:
        # What llama.cpp warns of is seldom the user's business, and its errors are in ours.
        logging.getLogger("mofa_gguf.llama_cpp").setLevel(logging.CRITICAL)


@contextmanager
def unlogged(name: str) -> Iterator[None]:
    """Keep one logger's warnings back, for what the command shows in its own words."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
