"""``mofa-gguf convert``: a safetensors checkpoint to a GGUF file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

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

if TYPE_CHECKING:
    from rich.table import Table

    from mofa_gguf.convert import ConversionReport, MemoryEstimate

NAME = "convert"


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


def run(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A checkpoint folder, a hub id, or 'demo'.")
    ],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", metavar="FILE", help="Default: ./<SOURCE>-<TYPE>.gguf."),
    ] = None,
    quantization: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--quantization",
            "-q",
            metavar="TYPE",
            help="F16, Q8_0, Q4_K_M, ... Default: Q4_K_M; F32 for adapters.",
        ),
    ] = None,
    base: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--base",
            metavar="CHECKPOINT",
            help="SOURCE is a LoRA adapter (PEFT) for this checkpoint.",
        ),
    ] = None,
    tensor_type: TensorTypes = None,
    output_type: OutputType = None,
    embedding_type: EmbeddingType = None,
    pure: Pure = False,
    imatrix: Imatrix = None,
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
    verify: Annotated[
        Verify,
        typer.Option(
            "--verify",
            help="deep: compare the result's predictions with those of the F32 weights.",
        ),
    ] = Verify.quick,
    verify_text: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--verify-text", metavar="FILE", help="The text for --verify deep."),
    ] = None,
    allow_tokenizer_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-tokenizer-mismatch",
            help="Accept that llama.cpp splits some texts in another way than the checkpoint does.",
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    list_known: Annotated[
        bool,
        typer.Option(
            "--list", callback=_list, is_eager=True, help="List the architectures and stop."
        ),
    ] = False,
) -> None:
    """Convert a safetensors checkpoint to a quantized GGUF file."""
    from mofa_gguf.cli.output import print_json
    from mofa_gguf.cli.progress import progress_view
    from mofa_gguf.convert import convert, convert_adapter
    from mofa_gguf.store import locate

    with progress_view(quiet=json) as progress:
        if base is not None:
            report = convert_adapter(
                source,
                locate(base, progress=progress),
                output,
                quantization or "F32",
                force=force,
                verify=not no_verify,
                dry_run=dry_run,
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
                force=force,
                threads=threads,
                verify="deep" if verify is Verify.deep or verify_text else not no_verify,
                verify_text=verify_text,
                dry_run=dry_run,
                allow_tokenizer_mismatch=allow_tokenizer_mismatch,
                progress=None if dry_run else progress,
            )
    if json:
        print_json(report.to_dict())
    else:
        show_report(report)


def show_report(report: ConversionReport) -> None:
    """Print a report as tables: every tensor for a dry run, the sums and checks otherwise."""
    from mofa_gguf.cli.output import console, count, facts_table, show, size

    out = console()
    if report.dry_run:
        show(out, tensor_table(report))
        out.print()
    seconds = sum(report.seconds.values())
    facts = [
        ("output", shown_output(report)),
        ("architecture", f"{report.architecture} ({report.family})"),
        ("parameters", count(report.n_parameters)),
        ("quantization", f"{report.quantization}, {report.bits_per_weight:.2f} bits a weight"),
        ("size", f"{size(report.n_bytes_in)} -> {size(report.n_bytes_out)}"),
        ("tensors", type_counts(report)),
        ("pre-tokenizer", str(report.pre_tokenizer or "none")),
    ]
    if report.dry_run and report.memory is not None:
        facts.append(("memory to run it", shown_memory(report.memory)))
    if not report.dry_run:
        speed = f", {size(report.n_bytes_in / seconds)}/s" if seconds else ""
        facts.append(("time", f"{seconds:.1f} s{speed}"))
    for check in report.checks:
        verdict = "passed" if check.passed else "FAILED"
        facts.append((f"check: {check.name}", f"{verdict}, {check.detail}"))
    facts += [("warning", warning) for warning in report.warnings]
    show(out, facts_table(facts))


def shown_output(report: ConversionReport) -> str:
    """The file, or the first one and how many there are."""
    parts = f" and {report.n_files - 1} more" if report.n_files > 1 else ""
    return f"{report.output}{parts}{' (not written: dry run)' if report.dry_run else ''}"


def shown_memory(memory: MemoryEstimate) -> str:
    """The sum and what it is made of."""
    from mofa_gguf.cli.output import size

    return (
        f"about {size(memory.n_bytes)} with {memory.n_ctx} tokens of context: weights "
        f"{size(memory.weights)}, KV cache {size(memory.kv_cache)}, buffers and program "
        f"{size(memory.allowance)}"
    )


def type_counts(report: ConversionReport) -> str:
    """How many tensors of each type: "12 Q8_0, 5 F32"."""
    from collections import Counter

    counts = Counter(tensor.target_type for tensor in report.tensors)
    return ", ".join(f"{number} {kind}" for kind, number in counts.most_common())


def tensor_table(report: ConversionReport) -> Table:
    """Every tensor of a conversion."""
    from mofa_gguf.cli.output import columns_table, size

    table = columns_table("tensor", "from", "shape", "type", "size", right=("size",))
    for tensor in report.tensors:
        table.add_row(
            tensor.name,
            tensor.source_name,
            " x ".join(str(n) for n in tensor.shape),
            f"{tensor.source_type} -> {tensor.target_type}",
            size(tensor.n_bytes),
        )
    return table
