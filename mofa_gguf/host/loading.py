"""From a configuration file to a provider."""

from __future__ import annotations

from pathlib import Path

from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.host.config import load_config
from mofa_gguf.host.registry import ProviderRegistry


def load_provider(
    path: Path | str | None = None,
    *,
    name: str | None = None,
    registry: ProviderRegistry | None = None,
) -> LLMProvider:
    """Make the provider that the configuration file names.

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
    return registry.create(config)
