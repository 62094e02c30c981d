"""The pluggy plugin behind the entry point "openai": a provider kind for each neighbour."""

from __future__ import annotations

from mofa_gguf.contract import LLMProvider
from mofa_gguf.host import LLMConfig, ProviderRegistry, hookimpl
from mofa_openai.neighbours import NEIGHBOURS


@hookimpl
def mofa_register_providers(registry: ProviderRegistry) -> None:
    """Register the kinds of ``neighbours.NEIGHBOURS``."""
    for neighbour in NEIGHBOURS.values():
        registry.register(
            neighbour.kind,
            make_provider,
            aliases=neighbour.aliases,
            description=neighbour.description,
        )


def make_provider(config: LLMConfig) -> LLMProvider:
    """An ``OpenAIProvider`` with the options that the configuration gives.

    Raises:
        ConfigError: an option is unknown or wrong.
    """
    # Imported here: finding the plugin must not load the openai client.
    from mofa_openai.provider import OpenAIProvider
    from mofa_openai.settings import OpenAIConfig

    return OpenAIProvider(OpenAIConfig.from_llm_config(config))
