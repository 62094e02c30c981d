"""``mofa-gguf plan``: what goes where when a model is loaded, and why, without loading it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from mofa_gguf.cli.planning import Outlook


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A .gguf file, a checkpoint folder, 'demo', or a hub id that was pulled.",
        ),
    ],
    n_ctx: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--n-ctx", min=1, metavar="N", help="Tokens of context; else as configured."),
    ] = None,
    parallel: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--parallel", min=1, max=256, metavar="N", help="Requests at once."),
    ] = None,
    gpu_layers: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--n-gpu-layers", "--gpu-layers", metavar="N|all|auto", help="Layers on GPUs."
        ),
    ] = None,
    draft: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--draft", metavar="MODEL", help="A draft model beside it."),
    ] = None,
    lora: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--lora", metavar="FILE", help="A LoRA adapter; may be given again."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Show what a model would take of this machine's memory. Exit code 1 if it does not fit.

    Options that are not given come from MOFA_GGUF_* environment variables. A checkpoint folder is
    converted first, as on its first use.
    """
    from mofa_gguf.cli.output import print_json
    from mofa_gguf.cli.planning import plan_for
    from mofa_gguf.settings import GGUFConfig

    options: dict[str, Any] = {
        "n_ctx": n_ctx,
        "max_parallel": parallel,
        "draft_model": draft,
        "lora": lora or None,
    }
    if gpu_layers is not None:
        options["n_gpu_layers"] = int(gpu_layers) if gpu_layers.isdigit() else gpu_layers
    given = {key: value for key, value in options.items() if value is not None}
    outlook = plan_for(GGUFConfig(model=model, models={}, **given))
    if json:
        print_json(outlook.to_dict())
    else:
        _print(outlook)
    if not outlook.whole.fits:
        raise typer.Exit(1)


def _print(outlook: Outlook) -> None:
    from rich.text import Text

    from mofa_gguf.cli.output import console, show

    load, out = outlook.target, console()
    plan = load.plan
    show(out, _table(outlook))
    out.print()
    cache = f"KV cache {plan.type_k}/{plan.type_v}, " if outlook.n_longest is None else ""
    out.print(f"{outlook.context}, {cache}{plan.n_gpu_layers} of {plan.n_total} layers offloaded")
    for reason in (*plan.reasons, *_notes(outlook)):
        out.print(f"- {reason}")
    for each in outlook.whole.loads:
        if each.plan.problem is None:
            continue
        name = "It" if each is load else "The draft model"
        why = f" {each.plan.problem} ({each.limit})."
        out.print(Text.assemble((f"{name} does not fit:", "red"), why))
        if each.plan.remedies:
            out.print(f"What would fit: {'; '.join(each.plan.remedies)}.")
    if outlook.whole.fits:
        out.print(Text("It fits.", "green"))


def _table(outlook: Outlook) -> Table:
    from mofa_gguf.cli.output import columns_table, size

    rows = outlook.rows()
    adapted = any(share.adapters for share, _ in rows)
    sizes = ("weights", *(["adapters"] if adapted else []), "KV cache", "buffers", "in all")
    numbers = ("layers", *sizes, "can be taken")
    table = columns_table("device", *numbers, "for", right=numbers)
    for share, what in rows:
        parts = [share.weights, *([share.adapters] if adapted else []), share.cache]
        parts += [share.compute + share.other, share.n_bytes, share.available]
        layers = str(share.n_layers) if share.weights else ""
        table.add_row(share.device, layers, *map(size, parts), what)
    return table


def _notes(outlook: Outlook) -> Iterator[str]:
    """What else is to be known, a line each."""
    from mofa_gguf.cli.output import size
    from mofa_gguf.provider.template_source import NO_TEMPLATE

    load = outlook.target
    if not load.measured:
        yield "buffers are estimated: llama.cpp was not asked"
    if load.prefix_bytes:
        yield (
            f"up to {size(load.prefix_bytes)} more of the host's memory, while it is free, for "
            "prefixes that gave way in the KV cache (prefix_memory)"
        )
    if load.embedding is not None and load.embedding.problem is not None:
        yield f"embedding would be refused: {load.embedding.problem}; lower n_embedding_batch"
    if not outlook.has_template:
        yield NO_TEMPLATE
    for path in outlook.unused:
        yield f"{path.name} is not used: images and sound are not supported"
