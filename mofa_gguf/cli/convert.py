"""``mofa-gguf convert``: a safetensors checkpoint to a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from mofa_gguf.convert import ConversionReport

NAME = "convert"


def _list(wanted: bool) -> None:
    """Print what can be converted, and stop."""
    if not wanted:
        return
    from mofa_gguf.cli.output import columns_table, console, show
    from mofa_gguf.convert import architectures

    table = columns_table('"architectures" in config.json', "in llama.cpp")
    for name, architecture in architectures().items():
        table.add_row(name, architecture)
    show(console(), table)
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
        str,
        typer.Option("--quantization", "-q", metavar="TYPE", help="F16, Q8_0, Q4_K_M, ..."),
    ] = "Q4_K_M",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be written.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--threads", min=1, help="Threads that quantize. Default: all cores."),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not reload and check the result.")
    ] = False,
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
    from mofa_gguf.convert import convert
    from mofa_gguf.store import locate

    with progress_view(quiet=json) as progress:
        folder = locate(source, progress=progress)
        report = convert(
            folder,
            output,
            quantization,
            force=force,
            threads=threads,
            verify=not no_verify,
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
        ("output", f"{report.output}{' (not written: dry run)' if report.dry_run else ''}"),
        ("architecture", f"{report.architecture} ({report.family})"),
        ("parameters", count(report.n_parameters)),
        ("quantization", f"{report.quantization}, {report.bits_per_weight:.2f} bits a weight"),
        ("size", f"{size(report.n_bytes_in)} -> {size(report.n_bytes_out)}"),
        ("tensors", type_counts(report)),
        ("pre-tokenizer", str(report.pre_tokenizer or "none")),
    ]
    if not report.dry_run:
        speed = f", {size(report.n_bytes_in / seconds)}/s" if seconds else ""
        facts.append(("time", f"{seconds:.1f} s{speed}"))
    for check in report.checks:
        verdict = "passed" if check.passed else "FAILED"
        facts.append((f"check: {check.name}", f"{verdict}, {check.detail}"))
    facts += [("warning", warning) for warning in report.warnings]
    show(out, facts_table(facts))


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
