"""``mofa-gguf quantize``: a GGUF file to one with other types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mofa_gguf.cli.type_options import (
    ContextSize,
    EmbeddingType,
    Imatrix,
    OutputType,
    Pure,
    SplitMaxSize,
    TensorTypes,
)

NAME = "quantize"


def run(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .gguf file, or the first of its parts.")
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", metavar="FILE", help="Default: ./<FILE>-<TYPE>.gguf."),
    ] = None,
    quantization: Annotated[
        str,
        typer.Option(
            "--quantization",
            "-q",
            metavar="TYPE",
            help="As for convert; COPY keeps all types, to divide a file or to join its parts.",
        ),
    ] = "Q4_K_M",
    tensor_type: TensorTypes = None,
    output_type: OutputType = None,
    embedding_type: EmbeddingType = None,
    pure: Pure = False,
    imatrix: Imatrix = None,
    allow_requantize: Annotated[
        bool,
        typer.Option(
            "--allow-requantize",
            help="Quantize what is quantized already; loses more than starting from the original.",
        ),
    ] = False,
    split_max_size: SplitMaxSize = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be written.")
    ] = False,
    n_ctx: ContextSize = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--threads", min=1, help="Threads that quantize. Default: all cores."),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not reload and check the result.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Quantize a GGUF file, or divide it into parts."""
    from mofa_gguf.cli.convert import show_report
    from mofa_gguf.cli.output import print_json
    from mofa_gguf.cli.progress import progress_view
    from mofa_gguf.convert import quantize

    with progress_view(quiet=json) as progress:
        report = quantize(
            source,
            output,
            quantization,
            tensor_types=tensor_type or (),
            output_type=output_type,
            embedding_type=embedding_type,
            pure=pure,
            imatrix=imatrix,
            allow_requantize=allow_requantize,
            split_max_size=split_max_size,
            force=force,
            threads=threads,
            verify=not no_verify,
            dry_run=dry_run,
            n_ctx=n_ctx,
            progress=None if dry_run else progress,
        )
    if json:
        print_json(report.to_dict())
    else:
        show_report(report)
