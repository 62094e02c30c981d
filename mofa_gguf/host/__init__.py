"""MoFA's side of the door: plugins, the provider registry, configuration files and clients.

A provider comes in as a plugin (``hookspecs``), is chosen by a configuration file (``config``,
``loading``) and made by the ``ProviderRegistry``; ``LLMClient`` and ``AsyncLLMClient`` ask it.
Knows the contract and nothing else of the package.
"""

from __future__ import annotations

from mofa_gguf.host.async_client import AsyncLLMClient
from mofa_gguf.host.client import LLMClient
from mofa_gguf.host.config import HostConfig, find_config, load_config
from mofa_gguf.host.errors import KindTaken
from mofa_gguf.host.hookspecs import PROJECT_NAME, hookimpl, hookspec
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.loading import load_provider
from mofa_gguf.host.plugins import PluginProblem
from mofa_gguf.host.registry import ProviderEntry, ProviderFactory, ProviderRegistry

__all__ = [
    "PROJECT_NAME",
    "AsyncLLMClient",
    "HostConfig",
    "KindTaken",
    "LLMClient",
    "LLMConfig",
    "PluginProblem",
    "ProviderEntry",
    "ProviderFactory",
    "ProviderRegistry",
    "find_config",
    "hookimpl",
    "hookspec",
    "load_config",
    "load_provider",
]
