"""The pluggy plugin behind the entry point "gguf-ray"."""

from __future__ import annotations

from mofa_gguf.contract import LLMProvider
from mofa_gguf.host import LLMConfig, ProviderRegistry, hookimpl


@hookimpl
def mofa_register_providers(registry: ProviderRegistry) -> None:
    """Register the kind "gguf-ray"."""
    registry.register(
        "gguf-ray",
        make_provider,
        aliases=("gguf-cluster",),
        description="GGUF models on the machines of a Ray cluster, run there by llama.cpp",
    )


def make_provider(config: LLMConfig) -> LLMProvider:
    """A ``RayProvider`` with the options that the configuration gives.

    Raises:
        ConfigError: an option is unknown or wrong.
    """
    # Imported here: finding the plugin must load neither Ray nor llama.cpp.
    from mofa_gguf_ray.provider import RayProvider
    from mofa_gguf_ray.settings import RayConfig

    options = RayConfig.from_options(config.options(), config.base_dir, chosen=config.chosen)
    return RayProvider(options)
