"""Bare text to go on from: no template, no tool calls, no reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatMessage,
    ChunkDelta,
    ConfigError,
    ProviderNotSupported,
)
from mofa_gguf.provider.loaded import LoadedModel, Prompt
from mofa_gguf.provider.parameters import Parameters
from mofa_gguf.provider.requests import render_prompt
from mofa_gguf.provider.tool_choice import offered_tools

RawPrompt = str | Sequence[int]
"""A text, in which control tokens may be written out, or token ids."""


class AnswerParser(Protocol):
    """From the model's text to what a reader gets."""

    @property
    def final_deltas(self) -> Sequence[ChunkDelta]:
        """What :meth:`finish` found still to be told."""

    def feed(self, text: str) -> list[ChunkDelta]:
        """More text."""

    def finish(self) -> ChatMessage:
        """The whole answer; there is no more text."""


class PlainText:
    """Text as it is."""

    final_deltas: Sequence[ChunkDelta] = ()

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def feed(self, text: str) -> list[ChunkDelta]:
        """The same text."""
        self._pieces.append(text)
        return [ChunkDelta(content=text)] if text else []

    def finish(self) -> ChatMessage:
        """All of it."""
        return ChatMessage.assistant("".join(self._pieces))


_OF_CONVERSATIONS = ("messages", "tools", "tool_choice")
# What only a chat template would read.
_OF_TEMPLATES = (
    "documents",
    "chat_template_kwargs",
    "enable_thinking",
    "reasoning_budget",
    "reasoning_effort",
    "verbosity",
)


def check_raw(request: ChatCompletionRequest) -> None:
    """Refuse what belongs to a conversation."""
    given = {
        **{field: getattr(request, field) for field in _OF_CONVERSATIONS},
        **{field: request.extra.get(field) for field in _OF_TEMPLATES},
    }
    for field, value in given.items():
        if value not in (None, [], {}):
            raise ConfigError(f"{field} has no place beside a bare prompt", field=field)


def prompt_of(
    model: LoadedModel,
    request: ChatCompletionRequest,
    parameters: Parameters,
    raw: RawPrompt | None,
) -> Prompt:
    """The request's conversation through the template, or the bare prompt.

    Raises ConfigError for a prompt that is empty or has ids that are no tokens.
    """
    if raw is None:
        return render_prompt(model, request, parameters)
    if model.engine.model.ranks:
        raise ProviderNotSupported("a reranker completes no text", provider="gguf")
    vocab = model.vocab
    if isinstance(raw, str):
        tokens = vocab.tokenize(raw, add_special=True, parse_special=True)
        text = raw
    else:
        tokens, text = list(raw), ""
        wrong = [token for token in tokens if not 0 <= token < vocab.n_tokens]
        if wrong:
            raise ConfigError(
                f"prompt: {wrong[0]} is no token of the model, whose ids are below "
                f"{vocab.n_tokens}",
                field="prompt",
            )
    if not tokens:
        raise ConfigError("prompt is empty; the model has nothing to go on from", field="prompt")
    return Prompt(text, tokens, raw=True)


def parser_of(model: LoadedModel, request: ChatCompletionRequest, prompt: Prompt) -> AnswerParser:
    """What reads the model's text."""
    if prompt.raw:
        return PlainText()
    return model.template.parser(offered_tools(request) or [], prompt=prompt.text)
