"""MoFA's side of the door: plugins, the provider registry, configuration files and clients.

A provider comes in as a plugin (``hookspecs``), is chosen by a configuration file (``config``,
``loading``) and made by the ``ProviderRegistry``; ``LLMClient`` and ``AsyncLLMClient`` ask it, run
the tools it calls and hold conversations with it. A ``FallbackChain`` asks several in turn, a
``RetryingProvider`` asks one again. Knows the contract and nothing else of the package.
"""

from __future__ import annotations

from mofa_gguf.host.async_client import AsyncLLMClient
from mofa_gguf.host.client import LLMClient
from mofa_gguf.host.config import HostConfig, find_config, load_config
from mofa_gguf.host.errors import KindTaken, ToolRoundsExceeded
from mofa_gguf.host.fallback import FallbackChain
from mofa_gguf.host.fallback_config import (
    FallbackChainConfig,
    load_fallback_chain,
    register_fallback_chain,
)
from mofa_gguf.host.fallback_policy import (
    CircuitBreakerConfig,
    FallbackCondition,
    FallbackTrigger,
)
from mofa_gguf.host.fallback_slots import FallbackSlot, FallbackSnapshot, ProviderSnapshot
from mofa_gguf.host.function_tools import FunctionTool
from mofa_gguf.host.hookspecs import PROJECT_NAME, hookimpl, hookspec
from mofa_gguf.host.in_flight import BatchItem
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.loading import load_provider
from mofa_gguf.host.plugins import PluginProblem
from mofa_gguf.host.registry import ProviderEntry, ProviderFactory, ProviderRegistry
from mofa_gguf.host.retry import (
    BackoffStrategy,
    LLMRetryPolicy,
    RetryableErrorType,
    RetryStrategy,
)
from mofa_gguf.host.retrying import RetryingProvider
from mofa_gguf.host.session import AsyncChatSession
from mofa_gguf.host.sync_session import ChatSession
from mofa_gguf.host.token_budget import CharBasedEstimator, TokenBudgetConfig, TokenEstimator
from mofa_gguf.host.tool_executor import FunctionExecutor, ToolExecutor
from mofa_gguf.host.tool_loop import RunResult, ToolCallRecord
from mofa_gguf.host.wrapping import TokenCounter

__all__ = [
    "PROJECT_NAME",
    "AsyncChatSession",
    "AsyncLLMClient",
    "BackoffStrategy",
    "BatchItem",
    "CharBasedEstimator",
    "ChatSession",
    "CircuitBreakerConfig",
    "FallbackChain",
    "FallbackChainConfig",
    "FallbackCondition",
    "FallbackSlot",
    "FallbackSnapshot",
    "FallbackTrigger",
    "FunctionExecutor",
    "FunctionTool",
    "HostConfig",
    "KindTaken",
    "LLMClient",
    "LLMConfig",
    "LLMRetryPolicy",
    "PluginProblem",
    "ProviderEntry",
    "ProviderFactory",
    "ProviderRegistry",
    "ProviderSnapshot",
    "RetryStrategy",
    "RetryableErrorType",
    "RetryingProvider",
    "RunResult",
    "TokenBudgetConfig",
    "TokenCounter",
    "TokenEstimator",
    "ToolCallRecord",
    "ToolExecutor",
    "ToolRoundsExceeded",
    "find_config",
    "hookimpl",
    "hookspec",
    "load_config",
    "load_fallback_chain",
    "load_provider",
    "register_fallback_chain",
]
