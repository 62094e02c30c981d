"""The ``mofa-gguf`` command.

Only typer is imported here and at the top of the command modules; each command imports what it
needs when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mofa_gguf.cli import (
    ask,
    batch,
    cache,
    chat,
    convert,
    demo,
    doctor,
    embed,
    imatrix,
    inspect,
    plan,
    providers,
    pull,
    quantize,
    serve,
    worker,
)
from mofa_gguf.cli.errors import reported
from mofa_gguf.cli.examples import EXAMPLES


class _ReportingGroup(TyperGroup):
    """Runs a command and turns its errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with reported():
            return super().invoke(ctx)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mofa_gguf import __version__

        typer.echo(f"mofa-gguf {__version__}")
        raise typer.Exit


def _options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the library and llama.cpp log.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    from mofa_gguf.cli.output import set_up_logging, write_any_text

    write_any_text()
    set_up_logging(verbose=verbose)


_COMMANDS: tuple[ModuleType, ...] = (
    demo,
    convert,
    quantize,
    imatrix,
    chat,
    ask,
    serve,
    embed,
    batch,
    inspect,
    plan,
    pull,
    cache,
    providers,
    doctor,
    worker,
)


def _app_of(commands: Iterable[ModuleType]) -> typer.Typer:
    made = typer.Typer(
        name="mofa-gguf",
        cls=_ReportingGroup,
        help="A local language model inside a MoFA agent's own process.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_options)
    for module in commands:
        made.command(module.NAME, epilog=f"Example: {EXAMPLES[module.NAME]}")(module.run)
    return made


app = _app_of(_COMMANDS)


def _app_for(arguments: Sequence[str]) -> typer.Typer:
    """What a line needs: typer reads the parameters of every command that it is given."""
    asked = [module for module in _COMMANDS if list(arguments[:1]) == [module.NAME]]
    return _app_of(asked) if asked else app


_ALLOCATIONS_A_COLLECTION = 300_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Without ``arguments`` it is the process's own, which ends with it.
    """
    if arguments is not None:
        return _run(arguments)
    # Modules and vocabularies are no garbage: looking through them again and again, and once more
    # at the end, is a sixth of what converting a small model takes.
    gc.set_threshold(_ALLOCATIONS_A_COLLECTION)
    # Nothing here multiplies matrices with NumPy, whose threads would be started all the same.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return _run(sys.argv[1:])
    finally:
        gc.freeze()


def _run(arguments: Sequence[str]) -> int:
    try:
        _app_for(arguments)(args=list(arguments), prog_name="mofa-gguf")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
