"""The ``mofa-gguf`` command.

Only typer is imported here and at the top of the command modules; each command imports what it
needs when it runs, so that ``--help`` answers at once. A line that begins with a command's name
imports that command's module alone.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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


COMMANDS = (
    "demo",
    "convert",
    "quantize",
    "imatrix",
    "chat",
    "ask",
    "serve",
    "embed",
    "batch",
    "inspect",
    "plan",
    "pull",
    "cache",
    "providers",
    "doctor",
    "worker",
)
"""The commands, in the order of the help; each is a module of this package."""


def app_of(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line, with these of its commands."""
    made = typer.Typer(
        name="mofa-gguf",
        cls=_ReportingGroup,
        help="A local language model inside a MoFA agent's own process.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_options)
    for name in commands:
        module = importlib.import_module(f"mofa_gguf.cli.{name}")
        made.command(name, epilog=f"Example: {EXAMPLES[name]}")(module.run)
    return made


def _app_for(arguments: Sequence[str]) -> typer.Typer:
    """What a line needs: typer reads the parameters of every command that it is given."""
    asked = [name for name in COMMANDS if list(arguments[:1]) == [name]]
    return app_of(asked) if asked else app_of()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Without ``arguments`` it is the process's own.
    """
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        _app_for(arguments)(args=list(arguments), prog_name="mofa-gguf")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
