"""From a configuration file to a provider."""

from __future__ import annotations

from pathlib import Path

from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.host.config import load_config
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.registry import ProviderRegistry
from mofa_gguf.host.retry import LLMRetryPolicy
from mofa_gguf.host.retrying import RetryingProvider


def load_provider(
    path: Path | str | None = None,
    *,
    name: str | None = None,
    registry: ProviderRegistry | None = None,
) -> LLMProvider:
    """Make the provider that the configuration file names.

    Where its table has ``max_retries``, failed requests are sent again: the provider then comes in
    a ``RetryingProvider``.

    Args:
        path: the file; without one it is looked for as ``find_config`` says.
        name: which of the file's providers; without one the default.
        registry: the kinds to choose from; without one those of the installed plugins.

    Raises:
        ConfigError: the file is missing or wrong, or a provider refused its options.
        ProviderNotSupported: no plugin offers the kind that the file asks for.
        LLMError: whatever else making the provider raises.
    """
    config = load_config(path).select(name)
    if registry is None:
        registry = ProviderRegistry().discover()
    return create_provider(registry, config)


def create_provider(registry: ProviderRegistry, config: LLMConfig) -> LLMProvider:
    """The provider that a configuration asks for, with its retries.

    Raises:
        LLMError: as ``ProviderRegistry.create``.
    """
    return with_retries(registry.create(config), config)


def with_retries(provider: LLMProvider, config: LLMConfig) -> LLMProvider:
    """The provider as it is, or sending again as often as the config's ``max_retries`` says.

    Only a number that was given counts, not MoFA's default.
    """
    if "max_retries" not in config.given() or not config.max_retries:
        return provider
    return RetryingProvider(provider, LLMRetryPolicy.with_max_attempts(config.max_retries + 1))
