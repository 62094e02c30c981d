"""``mofa-gguf doctor``: is everything here that a model needs, and what to do if not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "broken": ("BROKEN", "red")}


def run(
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", "-c", metavar="FILE", help="The config file to look at."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Check the machine, llama.cpp, the cache, the plugins and the configured providers.

    Loads the model of every configured provider. Exit code 1 if something is broken.
    """
    from rich.text import Text

    from mofa_gguf.cli.checks import examine
    from mofa_gguf.cli.output import columns_table, console, print_json, show
    from mofa_gguf.cli.waiting import waiting

    with waiting("looking around"):
        findings = examine(config)
    broken = [finding for finding in findings if finding.verdict == "broken"]
    if json:
        print_json({"healthy": not broken, "findings": [found.to_dict() for found in findings]})
    else:
        table = columns_table("", "", "")
        table.show_header = False
        for found in findings:
            detail = Text(found.detail)
            if found.advice:
                detail.append(f"\n-> {found.advice}", style="bold")
            table.add_row(Text(*_MARKS[found.verdict]), found.what, detail)
        out = console()
        show(out, table)
        things = "1 thing is" if len(broken) == 1 else f"{len(broken)} things are"
        out.print(Text(f"{things} broken.", "red") if broken else Text("All is well.", "green"))
    if broken:
        raise typer.Exit(1)
