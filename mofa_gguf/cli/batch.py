"""``mofa-gguf batch``: a file of requests to a file of answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mofa_gguf.cli.client import (
    Choice,
    ConfigOption,
    ContextOption,
    GpuLayersOption,
    ModelOption,
    ProviderOption,
    open_provider,
)
from mofa_gguf.cli.errors import FAILED, INTERRUPTED, CommandError, show_error
from mofa_gguf.cli.on_ray import RayAddressOption, RayOption, open_on_ray

if TYPE_CHECKING:
    from mofa_gguf.batch import BatchOptions, BatchReport
    from mofa_gguf.contract import LLMProvider


Source = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT.jsonl",
        help="OpenAI batch lines, or plain requests: messages, prompt or input (to embed).",
    ),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="OUT.jsonl", help="The answers; gone on with."),
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, help="Requests in flight at any time.")]
MaxTokens = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--max-tokens", "-n", min=1, help="For lines that do not say."),
]
Temperature = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--temperature", "-t", help="For lines that do not say."),
]
Seed = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--seed", help="For lines that do not say."),
]
IgnoreModel = Annotated[
    bool, typer.Option("--ignore-model", help="Ask this model, whatever the lines name.")
]
Ordered = Annotated[
    bool, typer.Option("--ordered", help="In the end, put OUT in the order of INPUT.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Compute the lines again that failed before.")
]
StopAfter = Annotated[
    int,
    typer.Option("--stop-after", min=0, help="Stop when so many in a row fail alike; 0: never."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def run(
    source: Source,
    output: Output,
    model: ModelOption = None,
    config: ConfigOption = None,
    provider: ProviderOption = None,
    parallel: Parallel = 32,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    seed: Seed = None,
    ignore_model: IgnoreModel = False,
    ordered: Ordered = False,
    retry_failed: RetryFailed = False,
    stop_after: StopAfter = 50,
    n_ctx: ContextOption = None,
    n_gpu_layers: GpuLayersOption = None,
    ray: RayOption = False,
    ray_address: RayAddressOption = None,
    json: Json = False,
) -> None:
    """Answer every line of INPUT, many at once; run it again to go on after an interruption.

    Lines that fail have an error in OUT, and the rest goes on; the exit code is 1 then.
    """
    from mofa_gguf.batch import BatchOptions

    if not source.is_file():
        raise CommandError(f"there is no file {source}; give a file of JSON lines")
    options = BatchOptions(
        parallel=parallel,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        ignore_model=ignore_model,
        ordered=ordered,
        retry_failed=retry_failed,
        stop_after=stop_after,
    )
    choice = Choice(model, config, provider, n_ctx, n_gpu_layers)
    on_ray = ray or ray_address is not None
    chosen = open_on_ray(choice, ray_address) if on_ray else open_provider(choice)
    report = _run(chosen, source, output, options)
    _show(report, output, as_json=json)
    if report.n_failed:
        show_error(
            f"{report.n_failed} of {report.n_lines} lines failed; their errors are in {output}, "
            "and --retry-failed computes them again"
        )
        raise typer.Exit(FAILED)


def _run(provider: LLMProvider, source: Path, output: Path, options: BatchOptions) -> BatchReport:
    """Run the batch in a loop of its own, from which Ctrl-C calls it back in good order."""
    from functools import partial

    from mofa_gguf.batch import run_batch
    from mofa_gguf.host.portal import PortalThread

    loop = PortalThread(provider.close)
    last: list[BatchReport] = []
    try:
        with _progress() as show:

            def keep(report: BatchReport) -> None:
                last[:] = [report]
                show(report)

            return loop.call(
                partial(run_batch, provider, source, output, options, on_progress=keep)
            )
    except KeyboardInterrupt:
        loop.close()  # ends what is in flight; what was answered meanwhile is written
        how_far = (
            f"{last[0].n_done} of {last[0].n_lines} lines are done" if last else "nothing done"
        )
        typer.echo(f"stopped: {how_far}; the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        loop.close()


@contextmanager
def _progress() -> Iterator[Callable[[BatchReport], None]]:
    if not sys.stderr.isatty():
        yield lambda report: None
        return
    from mofa_gguf.cli.batch_bar import batch_bar

    with batch_bar() as show:
        yield show


def _show(report: BatchReport, output: Path, *, as_json: bool) -> None:
    from mofa_gguf.cli.output import print_json, show_facts

    if as_json:
        print_json(report.to_dict())
        return
    lines = f"{report.n_done} of {report.n_lines} done, {report.n_failed} failed"
    if report.n_done_before:
        lines += f" ({report.n_done_before} by earlier runs)"
    rows = [("output", str(output)), ("lines", lines)]
    if report.prompt_tokens:
        cached = f"{report.cached_share:.0%} of the prompts cached"
        tokens = f"{report.prompt_tokens} read ({cached}), {report.completion_tokens} written"
        rows.append(("tokens", tokens))
    if report.completion_tokens:
        rows.append(("speed", f"{report.tokens_per_s:.1f} tokens/s, {report.elapsed_s:.1f} s"))
    show_facts(rows)
