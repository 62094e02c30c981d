"""``mofa-gguf chat``: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mofa_gguf.cli.answer_options import (
    MaxTokensOption,
    SeedOption,
    SystemOption,
    TemperatureOption,
)
from mofa_gguf.cli.client import (
    MODEL_HELP,
    Choice,
    ConfigOption,
    ContextOption,
    GpuLayersOption,
    ProviderOption,
    open_client,
)
from mofa_gguf.cli.errors import one_line, show_error

if TYPE_CHECKING:
    from mofa_gguf.contract import ChatMessage
    from mofa_gguf.host import LLMClient

HELP = """\
  /system TEXT   set the system prompt (without TEXT: remove it) and start afresh
  /reset         forget the conversation
  /help          show this
  /exit          leave (also Ctrl-D)
Ctrl-C stops an answer."""


def run(
    model: Annotated[Optional[str], typer.Argument(metavar="[MODEL]", help=MODEL_HELP)] = None,  # noqa: UP045
    config: ConfigOption = None,
    provider: ProviderOption = None,
    system: SystemOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    seed: SeedOption = None,
    n_ctx: ContextOption = None,
    n_gpu_layers: GpuLayersOption = None,
) -> None:
    """Talk with a model. /help lists what can be typed besides messages."""
    options = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    given = {name: value for name, value in options.items() if value is not None}
    with open_client(Choice(model, config, provider, n_ctx, n_gpu_layers)) as client:
        conversation = Conversation(client, system=system, options=given)
        if sys.stdin.isatty():
            _enable_line_editing()
            name = client.provider.default_model() or client.provider.name()
            typer.echo(f"{name}. /help lists the commands, /exit leaves.")
        converse(conversation, _read_line)


def _enable_line_editing() -> None:
    try:
        import readline  # noqa: F401  # importing it gives input() history and editing
    except ImportError:  # not on Windows
        return


def _read_line() -> str:
    # Without a terminal, the prompt would end up between the answers.
    return input("> " if sys.stdin.isatty() else "")


def converse(conversation: Conversation, read_line: Callable[[], str]) -> None:
    """Read lines and answer them until the end of input or /exit."""
    while True:
        try:
            line = read_line().strip()
        except EOFError:
            if sys.stdin.isatty():
                typer.echo()
            return
        except KeyboardInterrupt:
            typer.echo("\n(/exit or Ctrl-D leaves)", err=True)
            continue
        if line.startswith("/"):
            if not conversation.obey(line):
                return
        elif line:
            conversation.say(line)


@dataclass
class Conversation:
    """The messages so far. What went wrong or was stopped does not stay in them."""

    client: LLMClient
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[ChatMessage] = field(default_factory=list)

    def obey(self, line: str) -> bool:
        """Do what a /command says; False ends the conversation."""
        command, _, argument = line.partition(" ")
        if command in ("/exit", "/quit"):
            return False
        if command == "/reset":
            self.messages.clear()
            typer.echo("(forgotten)", err=True)
        elif command == "/system":
            self.system = argument.strip() or None
            self.messages.clear()
            typer.echo("(system prompt set)" if self.system else "(no system prompt)", err=True)
        elif command == "/help":
            typer.echo(HELP)
        else:
            show_error(f"there is no command {command}; there are /system, /reset, /help and /exit")
        return True

    def say(self, text: str) -> None:
        """Send a message and show the answer; an error or Ctrl-C leaves the conversation usable."""
        from mofa_gguf.cli.streaming import Answer, show_stream
        from mofa_gguf.cli.waiting import waiting_for_text
        from mofa_gguf.contract import ChatCompletionRequest, ChatMessage, LLMError

        before = [ChatMessage.system(self.system)] if self.system else []
        asked = ChatMessage.user(text)
        request = ChatCompletionRequest(messages=[*before, *self.messages, asked])
        answer = Answer()
        stream = self.client.stream(request.with_options(self.options))
        try:
            show_stream(waiting_for_text(stream, "thinking"), answer)
        except KeyboardInterrupt:
            typer.echo("(stopped)", err=True)
        except LLMError as error:
            show_error(one_line(error))
        finally:
            stream.close()
        if answer.content:
            self.messages += [asked, ChatMessage.assistant(answer.content)]
        if answer.finish_reason == "length":
            typer.echo("(cut: the limit of tokens was reached)", err=True)
