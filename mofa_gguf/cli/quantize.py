"""``mofa-gguf quantize``: a GGUF file to one with other types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mofa_gguf.cli.conversion_options import (
    ContextSize,
    DryRun,
    EmbeddingType,
    Force,
    Imatrix,
    Json,
    NoVerify,
    Output,
    OutputType,
    Pure,
    SplitMaxSize,
    TensorTypes,
    Threads,
)


def run(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A .gguf file, or the first of its parts.")
    ],
    output: Output = None,
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
    dry_run: DryRun = False,
    n_ctx: ContextSize = None,
    force: Force = False,
    threads: Threads = None,
    no_verify: NoVerify = False,
    json: Json = False,
) -> None:
    """Quantize a GGUF file, or divide it into parts."""
    from mofa_gguf.cli.conversion_report import tell
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
    tell(report, json=json)
