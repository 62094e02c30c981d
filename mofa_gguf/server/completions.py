"""/v1/completions: text that goes on from bare prompts, in OpenAI's older shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    LLMProvider,
    ResponseGatherer,
)
from mofa_gguf.server.errors import HttpError
from mofa_gguf.server.providers import Completer, Prompt, completer
from mofa_gguf.server.reading import Asked, read_options
from mofa_gguf.server.writing import DONE, JsonObject, sse, usage_of

_MAX_PROMPTS = 64
_MAX_TOKENS = 16  # OpenAI's default


@dataclass(frozen=True)
class Completion:
    """A body of /v1/completions."""

    asked: Asked
    prompts: tuple[Prompt, ...]
    echo: bool
    n: int

    @property
    def request(self) -> ChatCompletionRequest:
        """What is asked for each prompt."""
        return self.asked.request


def read_completion(body: JsonObject) -> Completion:
    """Read a body. Raises HttpError."""
    body = dict(body)
    prompts = _prompts(body.pop("prompt", None))
    echo = body.pop("echo", None) or False
    best_of, n = body.pop("best_of", None), body.get("n") or 1
    if body.pop("suffix", None):
        raise HttpError(400, "text cannot be filled in before a suffix here", param="suffix")
    if best_of not in (None, n):
        raise HttpError(400, "best_of other than n is not offered", param="best_of")
    n_logprobs = body.pop("logprobs", None)
    if n_logprobs is not None:
        if isinstance(n_logprobs, bool) or not isinstance(n_logprobs, int):
            raise HttpError(400, "logprobs is a number of alternatives here", param="logprobs")
        if echo:
            raise HttpError(400, "logprobs of an echoed prompt are not offered", param="logprobs")
        body.update(logprobs=True, top_logprobs=n_logprobs)
    if "messages" in body:
        raise HttpError(400, "messages are for /v1/chat/completions; send prompt", param="messages")
    if body.get("max_tokens") is None:
        body["max_tokens"] = _MAX_TOKENS
    asked = read_options(body)
    if echo and any(not isinstance(prompt, str) for prompt in prompts):
        raise HttpError(400, "token ids cannot be echoed as text", param="echo")
    return Completion(asked, prompts, bool(echo), n)


def _prompts(prompt: Any) -> tuple[Prompt, ...]:
    """OpenAI's four forms: a text, texts, token ids, several lists of token ids."""
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt, list) and prompt:
        if _are_tokens(prompt):
            return (tuple(prompt),)
        if len(prompt) > _MAX_PROMPTS:
            raise HttpError(400, f"more than {_MAX_PROMPTS} prompts at once", param="prompt")
        if all(isinstance(each, str) for each in prompt):
            return tuple(prompt)
        if all(isinstance(each, list) and each and _are_tokens(each) for each in prompt):
            return tuple(tuple(each) for each in prompt)
    raise HttpError(400, "prompt is a text, a list of texts, or token ids", param="prompt")


def _are_tokens(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


async def complete(provider: LLMProvider, wanted: Completion) -> JsonObject:
    """All continuations; the prompts are computed together."""
    able = completer(provider)
    tasks = [
        asyncio.ensure_future(_whole(able, wanted, number)) for number in range(len(wanted.prompts))
    ]
    try:
        answers = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    first = answers[0]
    usages = [answer["usage"] for answer in answers if "usage" in answer]
    return {
        **first,
        "choices": [choice for answer in answers for choice in answer["choices"]],
        **({"usage": _sum(usages)} if usages else {}),
    }


async def _whole(able: Completer, wanted: Completion, number: int) -> JsonObject:
    gatherer, writer = ResponseGatherer(), _Writer(wanted, number)
    texts: dict[int, JsonObject] = {}
    async with aclosing(able.complete_stream(wanted.prompts[number], wanted.request)) as chunks:
        async for chunk in chunks:
            gatherer.add(chunk)
            for choice in writer.choices(chunk):
                _add(texts.setdefault(choice["index"], choice), choice)
    response = gatherer.response()
    answer = {**writer.head(response.id, response.created, response.model)}
    answer["choices"] = [texts[index] for index in sorted(texts)]
    if response.usage is not None:
        answer["usage"] = usage_of(response.usage, response.timings)
    return answer


async def completion_events(
    provider: LLMProvider, wanted: Completion
) -> AsyncGenerator[bytes, None]:
    """The continuations piece by piece, one prompt after the other."""
    able = completer(provider)
    usages: list[JsonObject] = []
    head: JsonObject = {}
    no_usage = {"usage": None} if wanted.asked.include_usage else {}
    for number, prompt in enumerate(wanted.prompts):
        writer = _Writer(wanted, number)
        async with aclosing(able.complete_stream(prompt, wanted.request)) as chunks:
            async for chunk in chunks:
                head = head or writer.head(chunk.id, chunk.created, chunk.model)
                yield sse({**head, "choices": writer.choices(chunk), **no_usage})
                if chunk.usage is not None:
                    usages.append(usage_of(chunk.usage, chunk.timings))
    if wanted.asked.include_usage and usages:
        yield sse({**head, "choices": [], "usage": _sum(usages)})
    yield DONE


class _Writer:
    """The chunks of one prompt as OpenAI's choices."""

    def __init__(self, wanted: Completion, number: int) -> None:
        self._first_index = number * wanted.n
        prompt = wanted.prompts[number]
        self._echo = prompt if wanted.echo and isinstance(prompt, str) else ""
        self._n_chars: dict[int, int] = {}

    def head(self, id: str, created: int, model: str) -> JsonObject:
        """What all pieces of an answer share."""
        name = id.replace("chatcmpl-", "cmpl-")
        return {"id": name, "object": "text_completion", "created": created, "model": model}

    def choices(self, chunk: ChatCompletionChunk) -> list[JsonObject]:
        """A chunk's choices; the first of each begins with the echo."""
        written = []
        for choice in chunk.choices:
            text = choice.delta.content or ""
            if choice.index not in self._n_chars:
                self._n_chars[choice.index] = 0
                text = self._echo + text
            written.append(
                {
                    "text": text,
                    "index": self._first_index + choice.index,
                    "logprobs": self._logprobs(choice.index, choice.logprobs),
                    "finish_reason": choice.finish_reason and choice.finish_reason.value,
                }
            )
        return written

    def _logprobs(self, index: int, found: Any) -> JsonObject | None:
        """The older shape: parallel lists, and the characters at which tokens begin."""
        if not found:
            return None
        lists: JsonObject = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for token in found["content"]:
            lists["tokens"].append(token["token"])
            lists["token_logprobs"].append(token["logprob"])
            lists["top_logprobs"].append({t["token"]: t["logprob"] for t in token["top_logprobs"]})
            lists["text_offset"].append(self._n_chars[index])
            self._n_chars[index] += len(token["token"])
        return lists


def _add(whole: JsonObject, piece: JsonObject) -> None:
    """Put a later piece of a choice behind what there is."""
    if whole is piece:
        return
    whole["text"] += piece["text"]
    whole["finish_reason"] = piece["finish_reason"] or whole["finish_reason"]
    if piece["logprobs"] is not None:
        before = whole["logprobs"] or {}
        whole["logprobs"] = {k: [*before.get(k, ()), *v] for k, v in piece["logprobs"].items()}


def _sum(usages: Sequence[JsonObject]) -> JsonObject:
    keys = ("prompt_tokens", "completion_tokens", "total_tokens")
    written: JsonObject = {key: sum(usage[key] for usage in usages) for key in keys}
    details = [
        usage["prompt_tokens_details"] for usage in usages if "prompt_tokens_details" in usage
    ]
    if details:
        n_cached = sum(detail["cached_tokens"] for detail in details)
        written["prompt_tokens_details"] = {"cached_tokens": n_cached}
    return written
