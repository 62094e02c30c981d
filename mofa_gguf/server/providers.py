"""What a provider can do beyond the contract, looked for behind retries and in chains."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    LLMProvider,
    ProviderNotSupported,
)
from mofa_gguf.host import FallbackChain, RetryingProvider

if TYPE_CHECKING:  # heavy, and not every provider is ours
    from mofa_gguf.provider.status import ProviderStatus

Prompt = str | Sequence[int]


@runtime_checkable
class Completer(Protocol):
    """A provider that goes on from a bare text or from token ids."""

    def complete_stream(
        self, prompt: Prompt, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The text that follows, piece by piece."""


@runtime_checkable
class Reporter(Protocol):
    """A provider that tells of its loaded models."""

    def status(self) -> ProviderStatus:
        """Which models there are, and what they do."""


@runtime_checkable
class Loader(Protocol):
    """A provider that can load its default model beforehand."""

    async def load(self, model: str = "") -> None:
        """Load it now."""


def each(provider: LLMProvider) -> Iterator[LLMProvider]:
    """The provider, what it stands for, and a chain's members in their order."""
    yield provider
    if isinstance(provider, RetryingProvider):
        yield from each(provider.provider)
    elif isinstance(provider, FallbackChain):
        for member in provider.providers:
            yield from each(member)


def first_asked(provider: LLMProvider) -> LLMProvider:
    """The provider that a request reaches first."""
    members = [p for p in each(provider) if not isinstance(p, RetryingProvider | FallbackChain)]
    return members[0]


def completer(provider: LLMProvider) -> Completer:
    """The first that completes bare text. Raises ProviderNotSupported where none does."""
    for member in each(provider):
        if isinstance(member, Completer):
            return member
    raise ProviderNotSupported(
        f"Provider {provider.name()} answers conversations only; use /v1/chat/completions",
        provider=provider.name(),
    )


def model_names(provider: LLMProvider) -> list[str]:
    """What requests may call the models, the default's name first."""
    names: list[str] = []
    for member in each(provider):
        if isinstance(member, RetryingProvider | FallbackChain):
            continue
        if isinstance(member, Reporter):  # its other names are the paths of its files
            names += [model.name for model in member.status().models]
        else:
            names += member.supported_models() or [member.default_model()]
    default = provider.default_model()
    return list(dict.fromkeys(n for n in sorted(names, key=lambda n: n != default) if n))
