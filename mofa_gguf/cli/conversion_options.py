"""Options that ``convert`` and ``quantize`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, List, Optional  # noqa: UP035

import typer

# typer reads these at run time, also under Python 3.10.
Output = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--output", "-o", metavar="FILE", help="Default: ./<SOURCE>-<TYPE>.gguf."),
]
TensorTypes = Annotated[
    Optional[List[str]],  # noqa: UP006, UP045
    typer.Option(
        "--tensor-type",
        metavar="PATTERN=TYPE",
        help="A type for tensors whose GGUF name the regular expression is found in. Repeatable.",
    ),
]
OutputType = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--output-type", metavar="TYPE", help="The type of the output matrix."),
]
EmbeddingType = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--embedding-type", metavar="TYPE", help="The type of the token embeddings."),
]
Pure = Annotated[
    bool, typer.Option("--pure", help="One type for all tensors, instead of the usual mixture.")
]
Imatrix = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--imatrix",
        metavar="FILE",
        help="An importance matrix (mofa-gguf imatrix, or llama.cpp's); few bits need one.",
    ),
]
SplitMaxSize = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--split-max-size", metavar="N(M|G)", help="Several files where one would be larger."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")]
ContextSize = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--n-ctx",
        min=1,
        help="Tokens of context for the dry run's estimate of memory. Default: what the model was "
        "trained for.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--threads", min=1, help="Threads that quantize. Default: all cores."),
]
NoVerify = Annotated[bool, typer.Option("--no-verify", help="Do not reload and check the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def refuse_others(context: typer.Context, *, known: frozenset[str], because: str) -> None:
    """Refuse options given on the command line beside the ``known`` parameters.

    Raises typer.BadParameter: ``because``, the options, and to leave them out.
    """
    given = [
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name not in known and _is_given(context, parameter.name or "")
    ]
    if given:
        named = f"{', '.join(given[:-1])} and {given[-1]}" if given[1:] else given[0]
        them = "them" if given[1:] else "it"
        raise typer.BadParameter(f"{because} {named}; leave {them} out")


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
