"""The pluggy plugin behind the entry point "gguf": offers ``GGUFProvider`` and chains to MoFA."""

from __future__ import annotations

from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.host.fallback_config import register_fallback_chain
from mofa_gguf.host.hookspecs import hookimpl
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.registry import ProviderRegistry


@hookimpl
def mofa_register_providers(registry: ProviderRegistry) -> None:
    """Register the provider kinds "gguf" and "fallback-chain"."""
    registry.register(
        "gguf",
        make_provider,
        aliases=("llama-cpp", "gguf-local"),
        description="GGUF models and local checkpoints, run in this process by llama.cpp",
    )
    register_fallback_chain(registry)


def make_provider(config: LLMConfig) -> LLMProvider:
    """A ``GGUFProvider`` with the options that the configuration gives.

    Raises:
        ConfigError: an option is unknown or wrong.
    """
    # Imported here: finding the plugin must not load llama.cpp.
    from mofa_gguf.provider import GGUFProvider
    from mofa_gguf.settings import GGUFConfig

    options = GGUFConfig.from_options(config.options(), config.base_dir, chosen=config.chosen)
    return GGUFProvider(options)
