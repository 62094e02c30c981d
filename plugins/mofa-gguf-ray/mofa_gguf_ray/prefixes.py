"""The beginnings of a prompt, told from its messages: no template, no tokens, no model.

A prompt's text is cut at the end of its tools and of every message, and every ``BLOCK_CHARS``
characters within. Each cut has a key made of all that stands before it, so two requests have a key
in common exactly where their prompts begin alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from mofa_gguf.contract import ChatCompletionRequest, ChatMessage

BLOCK_CHARS = 512
MAX_PREFIXES = 1024
"""What comes after so many cuts is not told apart."""


@dataclass(frozen=True)
class Prefix:
    """The first ``n_chars`` characters of a prompt."""

    key: int
    n_chars: int


def prefixes_of(request: ChatCompletionRequest) -> tuple[Prefix, ...]:
    """The beginnings of a request's prompt, the shortest first."""
    return _chained(_parts_of(request))


def prefixes_of_text(model: str, text: str) -> tuple[Prefix, ...]:
    """The beginnings of a bare prompt."""
    return _chained(iter((model, text)))


def _parts_of(request: ChatCompletionRequest) -> Iterator[str]:
    # Templates put tools before or into the system message.
    tools = [tool.to_dict() for tool in request.tools or ()]
    yield request.model + (json.dumps(tools, sort_keys=True) if tools else "")
    for message in request.messages:
        yield _text_of(message)


def _text_of(message: ChatMessage) -> str:
    if isinstance(message.content, str) and not message.tool_calls:
        return f"{message.role}\x00{message.name or ''}\x00{message.content}"
    return json.dumps(message.to_dict(), sort_keys=True)


def _chained(parts: Iterator[str]) -> tuple[Prefix, ...]:
    found: list[Prefix] = []
    before, n_chars = b"", 0
    for part in parts:
        for block in _blocks(part):
            before = blake2b(
                before + block.encode("utf-8", "surrogatepass"), digest_size=8
            ).digest()
            n_chars += len(block)
            found.append(Prefix(int.from_bytes(before, "big"), n_chars))
            if len(found) == MAX_PREFIXES:
                return tuple(found)
    return tuple(found)


def _blocks(text: str) -> Sequence[str]:
    # An empty part is a cut, too: the end of a message says that it is no longer one.
    return [text[at : at + BLOCK_CHARS] for at in range(0, len(text), BLOCK_CHARS)] or [""]
