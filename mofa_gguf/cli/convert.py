"""``mofa-gguf convert``: a safetensors checkpoint to a GGUF file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

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
    refuse_others,
)

_FOR_ADAPTERS = frozenset(
    {"source", "output", "quantization", "base", "dry_run", "force", "no_verify", "json"}
)
"""Parameters that mean something with --base."""


class Verify(str, Enum):
    """How much a written file is checked."""

    quick = "quick"
    deep = "deep"


def _list(wanted: bool) -> None:
    """Print what can be converted, and stop."""
    if not wanted:
        return
    from mofa_gguf.cli.output import columns_table, console, show, unlogged
    from mofa_gguf.convert.plugins import supported

    table = columns_table('"architectures" in config.json', "in llama.cpp", "from")
    with unlogged("mofa_gguf.convert.plugins"):
        entries, problems = supported()
    for entry in entries:
        table.add_row(entry.name, entry.architecture, entry.source)
    show(console(), table)
    for problem in problems:
        typer.secho(f"problem: {problem}", err=True, fg=typer.colors.YELLOW)
    raise typer.Exit


Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A checkpoint folder, a hub id, or 'demo'.")
]
Quantization = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--quantization",
        "-q",
        metavar="TYPE",
        help="F16, Q8_0, Q4_K_M, ... Default: Q4_K_M; F32 for adapters.",
    ),
]
Base = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--base",
        metavar="CHECKPOINT",
        help="SOURCE is a LoRA adapter (PEFT) for this checkpoint.",
    ),
]
VerifyOption = Annotated[
    Verify,
    typer.Option(
        "--verify",
        help="deep: compare the result's predictions with those of the F32 weights.",
    ),
]
VerifyText = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--verify-text", metavar="FILE", help="The text for --verify deep."),
]
AllowMismatch = Annotated[
    bool,
    typer.Option(
        "--allow-tokenizer-mismatch",
        help="Accept that llama.cpp splits some texts in another way than the checkpoint does.",
    ),
]
ListKnown = Annotated[
    bool,
    typer.Option("--list", callback=_list, is_eager=True, help="List the architectures and stop."),
]


def run(
    context: typer.Context,
    source: Source,
    output: Output = None,
    quantization: Quantization = None,
    base: Base = None,
    tensor_type: TensorTypes = None,
    output_type: OutputType = None,
    embedding_type: EmbeddingType = None,
    pure: Pure = False,
    imatrix: Imatrix = None,
    split_max_size: SplitMaxSize = None,
    dry_run: DryRun = False,
    n_ctx: ContextSize = None,
    force: Force = False,
    threads: Threads = None,
    no_verify: NoVerify = False,
    verify: VerifyOption = Verify.quick,
    verify_text: VerifyText = None,
    allow_tokenizer_mismatch: AllowMismatch = False,
    json: Json = False,
    list_known: ListKnown = False,
) -> None:
    """Convert a safetensors checkpoint to a quantized GGUF file."""
    from mofa_gguf.cli.conversion_report import tell
    from mofa_gguf.cli.progress import progress_view
    from mofa_gguf.convert import convert, convert_adapter
    from mofa_gguf.store import locate

    deep = verify is Verify.deep or verify_text is not None
    _check_usage(context, is_adapter=base is not None, verify_both_ways=deep and no_verify)
    both = {"force": force, "dry_run": dry_run}
    with progress_view(quiet=json) as progress:
        if base is not None:
            checkpoint = locate(base, progress=progress)
            report = convert_adapter(
                source, checkpoint, output, quantization or "F32", verify=not no_verify, **both
            )
        else:
            report = convert(
                locate(source, progress=progress),
                output,
                quantization or "Q4_K_M",
                tensor_types=tensor_type or (),
                output_type=output_type,
                embedding_type=embedding_type,
                pure=pure,
                imatrix=imatrix,
                split_max_size=split_max_size,
                n_ctx=n_ctx,
                threads=threads,
                verify="deep" if deep else not no_verify,
                verify_text=verify_text,
                allow_tokenizer_mismatch=allow_tokenizer_mismatch,
                progress=None if dry_run else progress,
                **both,
            )
    tell(report, json=json)


def _check_usage(context: typer.Context, *, is_adapter: bool, verify_both_ways: bool) -> None:
    """Refuse options that would have no effect: exit code 2."""
    if is_adapter:
        refuse_others(
            context,
            known=_FOR_ADAPTERS,
            because="--base converts a LoRA adapter, for which there is no",
        )
    if verify_both_ways:
        raise typer.BadParameter("--no-verify leaves nothing to compare with --verify deep")
