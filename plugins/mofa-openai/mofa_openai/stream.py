"""A server's stream as one that MoFA's readers understand.

``StreamReader`` is a state machine without input or output of its own: ``feed`` takes a server's
event, ``finish`` its end, and both give chunks of the contract that obey ``contract.streaming``.
What servers do otherwise: the usage in a chunk of its own after the end, or in every chunk; a role
in every chunk; a whole tool call in one delta, its id repeated in each, or several calls under one
index; text beside the finish reason.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionChunk,
    FinishReason,
    NetworkError,
    SerializationError,
    ToolCallDelta,
    split_chunk,
)
from mofa_openai.answers import envelope, finish_reason, reasoning_of, usage_of, withheld

JsonObject = dict[str, Any]


@dataclass
class _Choice:
    """What was told of one choice."""

    begun: bool = False
    said_text: bool = False
    ended: FinishReason | None = None
    n_calls: int = 0
    ids: dict[int, str] = field(default_factory=dict)
    """The server's id of the call that its index stands for now."""
    numbers: dict[int, int] = field(default_factory=dict)
    """The server's index of a call, and ours."""


class StreamReader:
    """Reads one stream; ``model`` is what the answer's model is called where the server is silent.

    The last chunk is held back until it is known to be the last, because it carries the usage.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._envelope: JsonObject | None = None
        self._choices: dict[int, _Choice] = {}
        self._usage: JsonObject | None = None
        self._held: ChatCompletionChunk | None = None

    def feed(self, event: Mapping[str, Any]) -> list[ChatCompletionChunk]:
        """The chunks that can be told after this event.

        Raises:
            SerializationError: it is no chunk of OpenAI's API.
        """
        choices = event.get("choices")
        self._usage = usage_of(event) or self._usage
        if choices is None and self._usage is not None:
            choices = []
        if not isinstance(choices, list):
            raise SerializationError(
                "an event of the server's stream has no choices", content=_shown(event)
            )
        if self._envelope is None:
            self._envelope = envelope(event, self._model)
        told = [read for choice in choices if (read := self._read(choice, event)) is not None]
        if not told:
            return []
        chunk = ChatCompletionChunk.from_dict({**self._envelope, "choices": told})
        pieces = split_chunk(chunk)
        ready = [*([self._held] if self._held else []), *pieces[:-1]]
        self._held = pieces[-1]
        return ready

    def finish(self) -> list[ChatCompletionChunk]:
        """The last chunk, with the usage.

        Raises:
            SerializationError: there was no event at all.
            NetworkError: the server stopped before the answer's end.
            ContentFiltered: a filter withheld all of it.
        """
        if self._envelope is None:
            raise SerializationError("the server's stream has no event of OpenAI's API")
        if self._held is None or any(choice.ended is None for choice in self._choices.values()):
            raise NetworkError("the server ended its stream before the end of the answer")
        if self._usage is not None:
            usage = {**self._held.to_dict(), "usage": self._usage}
            self._held = ChatCompletionChunk.from_dict(usage)
        return [self._held]

    def _read(self, choice: object, event: Mapping[str, Any]) -> JsonObject | None:
        """A choice's news in the contract's shape; None where there is none."""
        if not isinstance(choice, Mapping):
            raise SerializationError(
                "a choice in the server's stream is no object", content=_shown(event)
            )
        index = choice.get("index") or 0
        delta = choice.get("delta") or {}
        if not isinstance(index, int) or not isinstance(delta, Mapping):
            raise SerializationError(
                "a choice in the server's stream has no delta", content=_shown(event)
            )
        so_far = self._choices.setdefault(index, _Choice())
        if so_far.ended is not None:
            return None
        calls = self._calls(so_far, delta.get("tool_calls") or ())
        text = delta.get("content") or delta.get("refusal") or None
        so_far.said_text = so_far.said_text or bool(text)
        so_far.ended = finish_reason(choice.get("finish_reason"), calls=so_far.n_calls > 0)
        if so_far.ended is FinishReason.CONTENT_FILTER and not so_far.said_text:
            raise withheld()
        news: JsonObject = {
            "content": text,
            "tool_calls": calls or None,
            "reasoning_content": reasoning_of(delta),
        }
        if not so_far.begun:
            news["role"] = "assistant"
        elif so_far.ended is None and not any(news.values()) and not choice.get("logprobs"):
            return None
        so_far.begun = True
        return {
            "index": index,
            "delta": {key: value for key, value in news.items() if value is not None},
            "finish_reason": so_far.ended,
            "logprobs": choice.get("logprobs"),
        }

    def _calls(self, so_far: _Choice, deltas: object) -> list[JsonObject]:
        if not isinstance(deltas, list | tuple) or not all(isinstance(d, Mapping) for d in deltas):
            raise SerializationError("tool calls in the server's stream are no list of objects")
        return [self._call(so_far, delta).to_dict() for delta in deltas]

    def _call(self, so_far: _Choice, delta: Mapping[str, Any]) -> ToolCallDelta:
        function = delta.get("function")
        function = function if isinstance(function, Mapping) else {}
        arguments = function.get("arguments") or ""
        if isinstance(arguments, Mapping):
            arguments = json.dumps(arguments, ensure_ascii=False)
        index, name, told_id = delta.get("index") or 0, function.get("name"), delta.get("id")
        is_new = index not in so_far.numbers or bool(
            name and told_id and told_id != so_far.ids[index]
        )
        if not is_new:
            return ToolCallDelta.fragment(so_far.numbers[index], arguments)
        if not isinstance(name, str) or not name:
            raise SerializationError("a tool call in the server's stream begins without a name")
        number = so_far.numbers[index] = so_far.n_calls
        so_far.n_calls += 1
        so_far.ids[index] = str(told_id or f"call_{uuid.uuid4().hex[:12]}")
        start = ToolCallDelta.start(number, so_far.ids[index], name)
        if start.function is not None:
            start.function.arguments = arguments
        return start


def _shown(event: Mapping[str, Any]) -> str:
    return json.dumps(event, default=str, ensure_ascii=False)[:2000]
