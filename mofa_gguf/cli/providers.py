"""``mofa-gguf providers``: which kinds of provider are installed, and from where."""

from __future__ import annotations

from typing import Annotated

import typer


def run(
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the provider kinds that installed plugins register, and plugins that are broken."""
    from mofa_gguf.cli.output import columns_table, console, print_json, show, unlogged
    from mofa_gguf.host import ProviderRegistry

    registry = ProviderRegistry()
    with unlogged("mofa_gguf.host.registry"):
        registry.discover()
    entries = sorted(registry.kinds(), key=lambda entry: entry.kind)
    problems = [str(problem) for problem in registry.problems]
    if json:
        kinds = [
            {
                "kind": entry.kind,
                "aliases": list(entry.aliases),
                "description": entry.description,
                "distribution": entry.distribution,
                "version": entry.version,
            }
            for entry in entries
        ]
        print_json({"kinds": kinds, "problems": problems})
        return
    table = columns_table("kind", "aliases", "from", "description")
    for entry in entries:
        origin = f"{entry.distribution or '?'} {entry.version or ''}".strip()
        table.add_row(entry.kind, ", ".join(entry.aliases), origin, entry.description)
    show(console(), table)
    for problem in problems:
        typer.secho(f"problem: {problem}", err=True, fg=typer.colors.YELLOW)
