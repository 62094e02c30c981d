"""What ``convert`` and ``quantize`` say when they are done, or would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from mofa_gguf.convert import ConversionReport, MemoryEstimate


def tell(report: ConversionReport, *, json: bool) -> None:
    """Print a report, as JSON or for people."""
    from mofa_gguf.cli.output import print_json

    if json:
        print_json(report.to_dict())
    else:
        show_report(report)


def show_report(report: ConversionReport) -> None:
    """Print a report as tables: every tensor for a dry run, the sums and checks otherwise."""
    from mofa_gguf.cli.output import console, count, show, show_facts, size

    if report.dry_run:
        show(console(), tensor_table(report))
        print()
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
    if report.memory is not None:
        facts.append(("memory to run it", shown_memory(report.memory)))
    if not report.dry_run:
        speed = f", {size(report.n_bytes_in / seconds)}/s" if seconds else ""
        facts.append(("time", f"{seconds:.1f} s{speed}"))
    for check in report.checks:
        verdict = "passed" if check.passed else "FAILED"
        facts.append((f"check: {check.name}", f"{verdict}, {check.detail}"))
    facts += [("warning", warning) for warning in report.warnings]
    show_facts(facts)


def shown_output(report: ConversionReport) -> str:
    """The file, or the first one and how many there are."""
    parts = f" and {report.n_files - 1} more" if report.n_files > 1 else ""
    return f"{report.output}{parts}{' (not written: dry run)' if report.dry_run else ''}"


def shown_memory(memory: MemoryEstimate) -> str:
    """The sum and what it is made of."""
    from mofa_gguf.cli.output import size

    of_text = "at a time" if memory.only_embeds else "of context"
    return (
        f"about {size(memory.n_bytes)} with {memory.n_ctx} tokens {of_text}: weights "
        f"{size(memory.weights)}, KV cache {size(memory.kv_cache)}, buffers "
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
