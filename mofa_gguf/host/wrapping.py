"""Providers that stand for other providers: counting tokens through them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mofa_gguf.contract.errors import ProviderNotSupported
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.contract.tools import Tool


@runtime_checkable
class TokenCounter(Protocol):
    """A provider that can tell how many tokens a request's prompt has."""

    async def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] | None = None
    ) -> int:
        """The prompt's tokens, as the model will get them.

        Raises:
            ProviderNotSupported: it cannot tell after all.
        """


async def count_tokens(
    provider: LLMProvider,
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool] | None = None,
    *,
    model: str = "",
) -> int:
    """``provider.count_tokens``, for any provider.

    ``model`` is passed on to those that take it, as providers with several models do.

    Raises:
        ProviderNotSupported: the provider has no such method.
        LLMError: whatever the provider raises.
    """
    if isinstance(provider, TokenCounter):
        counting = provider.count_tokens
        takes_model = "model" in inspect.signature(counting).parameters
        named = {"model": model} if model and takes_model else {}
        return await counting(messages, tools, **named)
    raise ProviderNotSupported(
        f"Provider {provider.name()} does not count tokens", provider=provider.name()
    )
