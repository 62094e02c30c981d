"""``mofa-gguf inspect``: what a GGUF file or a checkpoint says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from mofa_gguf.engine.files.header import GGUFHeader

_TEMPLATE = "tokenizer.chat_template"


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .gguf file, a checkpoint folder, 'demo', or a hub id that was pulled.",
        ),
    ],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    metadata: Annotated[bool, typer.Option("--metadata", help="List all metadata.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show a model's architecture, size, quantization and tokenizer without loading it."""
    from mofa_gguf.store import locate

    path = locate(model, offline=True)
    if path.is_dir():
        _inspect_checkpoint(path, tensors=tensors, json=json)
    else:
        _inspect_gguf(path, tensors=tensors, metadata=metadata, json=json)


def _inspect_gguf(path: Path, *, tensors: bool, metadata: bool, json: bool) -> None:
    from mofa_gguf.cli.output import columns_table, console, facts_table, print_json, show, size
    from mofa_gguf.engine.files.header import read_header

    header = read_header(path)
    facts = gguf_facts(header)
    if json:
        if metadata:
            facts["metadata"] = {key: _plain(value) for key, value in header.metadata.items()}
        if tensors:
            facts["tensors"] = [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "type": tensor.type.name,
                    "n_bytes": tensor.n_bytes,
                }
                for tensor in header.tensors
            ]
        print_json(facts)
        return
    out = console()
    show(out, facts_table(_shown(facts)))
    if metadata:
        out.print()
        pairs = [(key, _short(_plain(value))) for key, value in header.metadata.items()]
        show(out, facts_table(pairs))
    if tensors:
        table = columns_table("tensor", "shape", "type", "size", right=("size",))
        for tensor in header.tensors:
            shape = " x ".join(str(n) for n in tensor.shape)
            table.add_row(tensor.name, shape, tensor.type.name, size(tensor.n_bytes))
        out.print()
        show(out, table)


def gguf_facts(header: GGUFHeader) -> dict[str, Any]:
    """What a header says, as plain values; absent facts are left out."""
    from collections import Counter

    from mofa_gguf.provider.longest import longest_text

    n_bytes: Counter[str] = Counter()
    for tensor in header.tensors:
        n_bytes[tensor.type.name] += tensor.n_bytes
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    template = header.metadata.get(_TEMPLATE)
    facts: dict[str, Any] = {
        "path": str(header.path),
        "kind": "gguf",
        "gguf_version": header.version,
        "name": header.metadata.get("general.name"),
        "architecture": header.architecture,
        "n_parameters": header.n_parameters,
        "n_bytes": header.n_bytes,
        "bits_per_weight": round(8 * header.n_tensor_bytes / max(header.n_parameters, 1), 2),
        "tensor_types": dict(n_bytes.most_common()),
        "n_tensors": len(header.tensors),
        "context_length": header.hyperparameter("context_length"),
        "n_longest": longest_text(header),
        "n_layers": header.hyperparameter("block_count"),
        "embedding_length": header.hyperparameter("embedding_length"),
        "n_heads": header.hyperparameter("attention.head_count"),
        "n_kv_heads": header.hyperparameter("attention.head_count_kv"),
        "n_experts": header.hyperparameter("expert_count"),
        "tokenizer": header.metadata.get("tokenizer.ggml.model"),
        "pre_tokenizer": header.metadata.get("tokenizer.ggml.pre"),
        "n_vocabulary": _length(tokens),
        "chat_template": isinstance(template, str) and bool(template),
        "n_files": header.metadata.get("split.count"),
    }
    return {name: _plain(value) for name, value in facts.items() if value is not None}


def _shown(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from mofa_gguf.cli.output import count, size

    types = ", ".join(f"{kind} ({size(n)})" for kind, n in facts["tensor_types"].items())
    heads = f"{facts.get('n_heads', '?')} heads"
    if "n_kv_heads" in facts:
        heads += f", {facts['n_kv_heads']} for keys and values"
    rows = [
        ("file", f"{facts['path']} ({size(facts['n_bytes'])}, GGUF {facts['gguf_version']})"),
        ("name", facts.get("name", "")),
        ("architecture", facts["architecture"] or "not named"),
        ("parameters", f"{count(facts['n_parameters'])} in {facts['n_tensors']} tensors"),
        ("weights", f"{types}; {facts['bits_per_weight']} bits a weight"),
        ("context", f"{facts['context_length']} tokens" if "context_length" in facts else ""),
        (
            "to embed",
            f"texts of up to {facts['n_longest']} tokens" if "n_longest" in facts else "",
        ),
        (
            "shape",
            f"{facts.get('n_layers', '?')} layers, width {facts.get('embedding_length', '?')}, "
            f"{heads}",
        ),
        ("experts", str(facts.get("n_experts") or "")),
        (
            "tokenizer",
            " ".join(str(facts[name]) for name in ("tokenizer", "pre_tokenizer") if name in facts)
            + (f", {facts['n_vocabulary']} tokens" if "n_vocabulary" in facts else ""),
        ),
        ("chat template", "yes" if facts["chat_template"] else "none"),
        ("parts", f"one of {facts['n_files']} files" if facts.get("n_files", 1) > 1 else ""),
    ]
    return [(name, str(value)) for name, value in rows if value]


def _inspect_checkpoint(path: Path, *, tensors: bool, json: bool) -> None:
    """A dry run of its conversion knows all there is to know."""
    from mofa_gguf.cli.conversion_report import tensor_table
    from mofa_gguf.cli.output import console, count, facts_table, print_json, show, size
    from mofa_gguf.convert import convert

    report = convert(path, None, "Q8_0", dry_run=True)
    sources: dict[str, int] = {}
    for tensor in report.tensors:
        sources[tensor.source_type] = sources.get(tensor.source_type, 0) + 1
    if json:
        facts: dict[str, Any] = {
            "path": str(path),
            "kind": "checkpoint",
            "architecture": report.architecture,
            "family": report.family,
            "n_parameters": report.n_parameters,
            "n_bytes": report.n_bytes_in,
            "tensor_types": sources,
            "pre_tokenizer": report.pre_tokenizer,
            "warnings": list(report.warnings),
        }
        if tensors:
            facts["tensors"] = report.to_dict()["tensors"]
        print_json(facts)
        return
    types = ", ".join(f"{number} {kind}" for kind, number in sources.items())
    rows = [
        ("checkpoint", f"{path} ({size(report.n_bytes_in)})"),
        ("architecture", f"{report.architecture} ({report.family})"),
        ("parameters", f"{count(report.n_parameters)} in {len(report.tensors)} tensors"),
        ("weights", types),
        ("pre-tokenizer", str(report.pre_tokenizer or "none")),
        ("as Q8_0", size(report.n_bytes_out)),
        *(("warning", warning) for warning in report.warnings),
    ]
    out = console()
    show(out, facts_table(rows))
    if tensors:
        out.print()
        show(out, tensor_table(report))


def _length(value: Any) -> int | None:
    if value is None:
        return None
    length = getattr(value, "length", None)
    return len(value) if length is None else int(length)


def _plain(value: Any) -> Any:
    """A metadata value for JSON; a long array becomes its length."""
    length = getattr(value, "length", None)
    if length is not None:
        return f"array of {length}"
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace").decode("utf-8")
    return value


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."
