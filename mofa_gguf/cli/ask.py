"""``mofa-gguf ask``: one prompt, one answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mofa_gguf.cli.answer_options import (
    MaxTokensOption,
    SeedOption,
    SystemOption,
    TemperatureOption,
)
from mofa_gguf.cli.client import (
    Choice,
    ConfigOption,
    ContextOption,
    GpuLayersOption,
    ModelOption,
    ProviderOption,
    open_client,
)
from mofa_gguf.cli.errors import CommandError

if TYPE_CHECKING:
    from mofa_gguf.contract import ChatCompletionRequest


def run(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The question; '-' reads standard input.")
    ],
    model: ModelOption = None,
    config: ConfigOption = None,
    provider: ProviderOption = None,
    system: SystemOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    seed: SeedOption = None,
    schema: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--schema", metavar="FILE", help="A JSON Schema the answer must obey."),
    ] = None,
    n_ctx: ContextOption = None,
    n_gpu_layers: GpuLayersOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the whole response as JSON, not streamed.")
    ] = False,
) -> None:
    """Ask one question and print the answer as it comes."""
    from mofa_gguf.cli.output import print_json
    from mofa_gguf.cli.streaming import Answer, show_stream
    from mofa_gguf.cli.waiting import waiting, waiting_for_text

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise CommandError(
            "the prompt is empty; give a question, or '-' with text on standard input"
        )
    options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    request = _request(text, system=system, schema=_read_schema(schema), options=options)
    with open_client(Choice(model, config, provider, n_ctx, n_gpu_layers)) as client:
        if json:
            with waiting("loading the model and answering"):
                response = client.chat(request)
            print_json(response.to_dict())
            return
        answer = Answer()
        show_stream(waiting_for_text(client.stream(request)), answer)
    if answer.finish_reason == "length":
        typer.echo("(cut: the limit of tokens was reached)", err=True)


def _read_schema(path: Path | None) -> Any:
    if path is None:
        return None
    import json

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"cannot read the schema {path} ({error.strerror})") from error
    except ValueError as error:
        raise CommandError(f"the schema {path} is no JSON ({error})") from error
    if not isinstance(schema, dict):
        raise CommandError(f"the schema {path} is no JSON object; give a JSON Schema")
    return schema


def _request(
    text: str, *, system: str | None, schema: Any, options: dict[str, Any]
) -> ChatCompletionRequest:
    from mofa_gguf.contract import ChatCompletionRequest, ResponseFormat

    request = ChatCompletionRequest.new()
    if system is not None:
        request = request.system(system)
    if schema is not None:
        options = {**options, "response_format": ResponseFormat.json_schema(schema)}
    given = {name: value for name, value in options.items() if value is not None}
    return request.user_message(text).with_options(given)
