"""``mofa-gguf demo``: the whole road once, from a safetensors folder to an answering agent."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mofa_gguf.cli.errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from mofa_gguf.contract import ChatCompletionChunk, Tool
    from mofa_gguf.host import LLMClient

QUESTION = "What is MoFA?"
TOOL_QUESTION = "What is the weather in Paris?"
SENTENCES = ("What is MoFA?", "Tell me what MoFA is.", "Repeat: green apples.")

# What a weather service would know.
WEATHER = {
    "paris": {"temperature": 18, "condition": "sunny"},
    "london": {"temperature": 12, "condition": "rainy"},
}


def run(
    quantization: Annotated[
        str, typer.Option("--quantization", "-q", metavar="TYPE", help="What to convert to.")
    ] = "Q8_0",
) -> None:
    """Convert the bundled checkpoint, load it in this process, and let it answer and use a tool."""
    from mofa_gguf.cli.output import console

    started = time.monotonic()
    out = console(markup=True)
    with tempfile.TemporaryDirectory(prefix="mofa-gguf-demo-") as name:
        folder = Path(name)
        _convert(out, folder / "demo.gguf", quantization)
        with _load(out, folder) as client:
            _ask(out, client)
            _use_tool(out, client)
            _embed(out, client)
    out.print(
        f"\n[green]Done in {time.monotonic() - started:.1f} s.[/] "
        "Now try [bold]mofa-gguf chat demo[/], or a model of your own: "
        "[bold]mofa-gguf chat FOLDER_OR_GGUF[/]"
    )


def _step(out: Console, number: int, text: str) -> None:
    out.print(f"\n[bold cyan]{number}.[/] [bold]{text}[/]")


def _convert(out: Console, target: Path, quantization: str) -> None:
    from mofa_gguf.cli.conversion_report import type_counts
    from mofa_gguf.cli.output import count, size
    from mofa_gguf.cli.progress import progress_view
    from mofa_gguf.convert import convert
    from mofa_gguf.store import demo_checkpoint

    folder = demo_checkpoint()
    _step(out, 1, f"Converting the safetensors checkpoint to GGUF, {quantization}")
    out.print(f"   {folder}", markup=False)
    with progress_view() as progress:
        report = convert(folder, target, quantization, progress=progress)
    seconds = sum(report.seconds.values())
    passed = sum(check.passed for check in report.checks)
    out.print(
        f"   {report.family}, {count(report.n_parameters)} parameters: "
        f"{size(report.n_bytes_in)} -> {size(report.n_bytes_out)} in {seconds:.1f} s\n"
        f"   {type_counts(report)}; {passed} of {len(report.checks)} checks passed"
    )


def _load(out: Console, folder: Path) -> LLMClient:
    from mofa_gguf.host import LLMClient, ProviderRegistry, load_provider

    _step(out, 2, "A config file chooses the provider, a plugin brings it")
    text = '[providers.local]\nprovider = "gguf"\nmodel = "demo.gguf"\n'
    file = folder / "mofa.toml"
    file.write_text(text, encoding="utf-8")
    out.print("   " + text.strip().replace("\n", "\n   "), markup=False)
    registry = ProviderRegistry().discover()
    provider = load_provider(file, registry=registry)
    (entry,) = [entry for entry in registry.kinds() if entry.kind == "gguf"]
    out.print(
        f"   {entry.kind!r} comes from {entry.distribution} {entry.version}; "
        f"load_provider() made a {type(provider).__name__}"
    )
    return LLMClient(provider)


def _ask(out: Console, client: LLMClient) -> None:
    from mofa_gguf.cli.streaming import Answer, show_stream
    from mofa_gguf.contract import ChatCompletionRequest

    _step(out, 3, "Asking, the answer streamed")
    out.print(f"   [dim]user:[/] {QUESTION}\n   [dim]model:[/] ", end="")
    started = time.monotonic()
    clock = _Clock()
    request = ChatCompletionRequest.new().user_message(QUESTION).with_temperature(0)
    answer = Answer()
    show_stream(clock.watch(client.stream(request)), answer)
    if not answer.content:
        raise CommandError("the model gave no answer; try a finer quantization (-q BF16)")
    n_tokens = answer.usage.completion_tokens if answer.usage else 0
    loading = (clock.first or started) - started
    out.print(
        f"   [dim]loaded the model and read the prompt in {loading:.2f} s, then "
        f"{n_tokens} tokens, {(n_tokens - 1) / max(clock.elapsed(), 1e-6):.0f} a second[/]"
    )


def _use_tool(out: Console, client: LLMClient) -> None:
    from mofa_gguf.contract import ChatCompletionRequest, ChatMessage

    _step(out, 4, "Using a tool: the model calls a Python function and answers from its result")
    out.print(f"   [dim]user:[/] {TOOL_QUESTION}")
    request = ChatCompletionRequest.new().user_message(TOOL_QUESTION).tool(weather_tool())
    request = request.with_temperature(0)
    response = client.chat(request)
    calls = response.tool_calls() or []
    if not calls:
        raise CommandError(
            f"the model did not call the tool but said {response.content()!r}; "
            "try a finer quantization (-q BF16)"
        )
    request = request.message(ChatMessage.assistant_with_tool_calls(calls))
    for call in calls:
        function = call.function
        out.print("   [dim]model calls:[/] ", end="")
        out.print(f"{function.name}({function.arguments})", markup=False)
        result = json.dumps(get_weather(**function.parse_arguments()))
        out.print("   [dim]tool:[/] ", end="")
        out.print(result, markup=False)
        request = request.message(ChatMessage.tool_result(call.id, result))
    out.print("   [dim]model:[/] ", end="")
    out.print(client.chat(request).content() or "", markup=False)


def weather_tool() -> Tool:
    """The tool as the model is told of it."""
    from mofa_gguf.contract import Tool

    return Tool.function(
        "get_weather",
        "Get the current weather of a city",
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    )


def get_weather(city: str = "", **_unused: object) -> dict[str, object]:
    """The function behind the tool."""
    known = WEATHER.get(city.strip().lower())
    return {"error": "unknown city"} if known is None else {"city": city, **known}


def _embed(out: Console, client: LLMClient) -> None:
    _step(out, 5, "Embedding sentences")
    first, *others = client.embed_batch(list(SENTENCES))
    for sentence, vector in zip(SENTENCES[1:], others, strict=True):
        alike = similarity(first, vector)
        out.print(f"   {SENTENCES[0]!r} and {sentence!r}: {alike:.2f} alike", markup=False)
    out.print(f"   [dim]{len(first)} numbers a sentence; these of a chat model are rough[/]")


def similarity(first: list[float], second: list[float]) -> float:
    """Cosine of the angle between two vectors; 0 if one has no length."""
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    lengths = math.hypot(*first) * math.hypot(*second)
    return dot / lengths if lengths else 0.0


@dataclass
class _Clock:
    """When a stream's first text came, and its end."""

    first: float | None = None
    last: float | None = None

    def watch(self, chunks: Iterable[ChatCompletionChunk]) -> Iterator[ChatCompletionChunk]:
        """The same chunks, looked at the clock for."""
        for chunk in chunks:
            self.last = time.monotonic()
            if self.first is None and any(choice.delta.content for choice in chunk.choices):
                self.first = self.last
            yield chunk

    def elapsed(self) -> float:
        """Seconds from the first text to the end."""
        return (self.last or 0.0) - (self.first or 0.0)
