"""``mofa-gguf cache``: the converted models that are kept, and removing them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mofa_gguf.cli.errors import CommandError

if TYPE_CHECKING:
    from mofa_gguf.store import CachedModel, CacheUsage

_AGES = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


def run(
    remove: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--remove", metavar="NAME", help="Remove one model; may be given again."),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove every converted model; downloads stay.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    cache_dir: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--cache-dir", metavar="DIR", help="Another cache folder."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what there is as JSON.")] = False,
) -> None:
    """List the converted models that are kept, with sizes and ages, or remove some."""
    from mofa_gguf.cli.output import print_json
    from mofa_gguf.store import usage

    if remove and clear:
        raise CommandError("give either --clear, or --remove with names, not both")
    held = usage(cache_dir)
    if remove or clear:
        _remove(held, remove or [], cache_dir, yes=yes, quiet=json)
        held = usage(cache_dir)
        if not json:
            return
    if json:
        print_json(held.to_dict())
        return
    _show(held)


def _show(held: CacheUsage) -> None:
    from mofa_gguf.cli.output import columns_table, console, show, size

    out = console()
    if held.models:
        table = columns_table("name", "size", "age", "made from", right=("size",))
        for model in held.models:
            table.add_row(model.name, size(model.n_bytes), _age(model), model.source)
        show(out, table)
    typer.echo(f"{held.folder}: {size(held.n_bytes)} in {_models(len(held.models))}")


def _remove(
    held: CacheUsage, names: list[str], cache_dir: Path | None, *, yes: bool, quiet: bool
) -> None:
    from mofa_gguf.cli.output import size
    from mofa_gguf.store import clear, remove

    chosen = [_named(held, name) for name in names] or list(held.models)
    if not chosen:
        if not quiet:
            typer.echo("there is nothing to remove", err=True)
        return
    total = size(sum(model.n_bytes for model in chosen))
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("removing needs --yes where nobody can be asked")
        typer.confirm(f"Remove {_models(len(chosen))} ({total})?", abort=True, err=True)
    if names:
        for model in chosen:
            remove(model)
    else:
        clear(cache_dir)
    if not quiet:
        typer.echo(f"removed {_models(len(chosen))} ({total})")


def _named(held: CacheUsage, name: str) -> CachedModel:
    for model in held.models:
        if name in (model.name, str(model.path)):
            return model
    known = ", ".join(model.name for model in held.models) or "nothing"
    raise CommandError(f"the cache has no model {name!r}; it has {known}")


def _models(n: int) -> str:
    return "1 model" if n == 1 else f"{n} models"


def _age(model: CachedModel) -> str:
    """How long ago the model was made: "3 days"."""
    seconds = time.time() - model.made_at_s
    for length, name in _AGES:
        if seconds >= length:
            n = int(seconds // length)
            return f"{n} {name}" if n == 1 else f"{n} {name}s"
    return "just made"
