"""``mofa-gguf imatrix``: an importance matrix, for quantizing to few bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mofa_gguf.cli.conversion_options import Force, Json

if TYPE_CHECKING:
    from mofa_gguf.convert import ImportanceReport


def run(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .gguf file, best in 16 bits, or a hub id.")
    ],
    text: Annotated[
        Path, typer.Argument(metavar="TEXT", help="A text file like what the model will read.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write (.gguf)."),
    ],
    chunk_size: Annotated[
        int, typer.Option("--chunk-size", min=1, help="Tokens read at once.")
    ] = 512,
    chunks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--chunks", min=1, help="Read so many chunks at most. Default: all."),
    ] = None,
    with_output: Annotated[
        bool, typer.Option("--with-output", help="Weights for the output matrix, too.")
    ] = False,
    force: Force = False,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--threads", min=1, help="Threads that compute. Default: all cores."),
    ] = None,
    json: Json = False,
) -> None:
    """Compute an importance matrix: which weights matter on a text."""
    from mofa_gguf.cli.errors import CommandError
    from mofa_gguf.cli.output import print_json
    from mofa_gguf.cli.progress import progress_view
    from mofa_gguf.convert import compute_importance
    from mofa_gguf.store import locate

    with progress_view(quiet=json) as progress:
        path = locate(model, progress=progress)
        if path.is_dir():
            raise CommandError(
                f"{path} is a checkpoint; convert it first (mofa-gguf convert {model} -q F16)"
            )
        report = compute_importance(
            path,
            text,
            output,
            chunk_size=chunk_size,
            max_chunks=chunks,
            with_output=with_output,
            force=force,
            threads=threads,
            progress=progress,
        )
    if json:
        print_json(report.to_dict())
    else:
        _print(report)


def _print(report: ImportanceReport) -> None:
    from mofa_gguf.cli.output import show_facts

    facts = [
        ("output", str(report.output)),
        ("read", f"{report.n_chunks} chunks of {report.chunk_size} tokens"),
        ("matrices", str(report.n_entries)),
        ("time", f"{report.seconds:.1f} s"),
    ]
    facts += [("warning", warning) for warning in report.warnings]
    show_facts(facts)
