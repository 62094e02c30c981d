"""``mofa-gguf plan``: what goes where when a model is loaded, and why, without loading it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from mofa_gguf.engine.planning.load_plan import LoadPlan
    from mofa_gguf.engine.planning.plan import Share

NAME = "plan"


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
        typer.Option("--gpu-layers", metavar="N", help="Layers on GPUs: a number, all or auto."),
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

    options: dict[str, Any] = {"n_ctx": n_ctx, "max_parallel": parallel}
    if gpu_layers is not None:
        options["n_gpu_layers"] = int(gpu_layers) if gpu_layers.isdigit() else gpu_layers
    given = {key: value for key, value in options.items() if value is not None}
    load = plan_for(GGUFConfig(model=model, **given))
    if json:
        print_json(as_dict(load))
    else:
        _print(load)
    if not load.plan.fits:
        raise typer.Exit(1)


def as_dict(load: LoadPlan) -> dict[str, Any]:
    """A plan as plain values."""
    return {
        **load.plan.to_dict(),
        "resident_bytes": load.resident_bytes,
        "limit": load.limit,
        "measured": load.measured,
        "use_mmap": load.options.use_mmap,
    }


def _print(load: LoadPlan) -> None:
    from mofa_gguf.cli.output import columns_table, console, show

    plan, out = load.plan, console()
    numbers = ("layers", "weights", "KV cache", "buffers", "in all", "can be taken")
    table = columns_table("device", *numbers, right=numbers)
    for share in (plan.host, *plan.devices):
        table.add_row(*_row(share))
    show(out, table)
    out.print()
    out.print(
        f"context {plan.n_ctx} tokens, KV cache {plan.type_k}/{plan.type_v}, "
        f"{plan.n_gpu_layers} of {plan.n_total} layers offloaded"
    )
    for reason in plan.reasons:
        out.print(f"- {reason}")
    if not load.measured:
        out.print("- buffers are estimated: llama.cpp could not be asked")
    if plan.fits:
        out.print("[green]It fits.[/]")
        return
    out.print(f"[red]It does not fit:[/] {plan.problem} ({load.limit}).")
    if plan.remedies:
        out.print(f"What would fit: {'; '.join(plan.remedies)}.")


def _row(share: Share) -> list[str]:
    from mofa_gguf.cli.output import size

    sizes = (share.weights, share.cache, share.compute + share.other, share.n_bytes)
    return [share.device, str(share.n_layers), *map(size, sizes), size(share.available)]
