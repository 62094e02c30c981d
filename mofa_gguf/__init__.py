"""A local language model inside a MoFA agent's own process.

    from mofa_gguf import GGUFConfig, GGUFProvider, LLMClient

Nothing heavy is imported until it is used: neither llama.cpp nor numpy.
"""

from __future__ import annotations

# Not lazy: the name is both a subpackage's and a function's, and the function must win. The
# subpackage's own module is light.
from mofa_gguf.convert import convert

TYPE_CHECKING = False  # as in typing, which takes a while to import
if TYPE_CHECKING:
    from typing import Any

    from mofa_gguf.contract import *
    from mofa_gguf.convert.report import ConversionReport
    from mofa_gguf.host import (
        AsyncChatSession,
        AsyncLLMClient,
        ChatSession,
        FallbackChain,
        LLMClient,
        LLMRetryPolicy,
        ProviderRegistry,
        TokenBudgetConfig,
        load_provider,
    )
    from mofa_gguf.provider import GGUFProvider
    from mofa_gguf.settings import GGUFConfig

__all__ = [
    "AnyToolChoice",
    "ApiError",
    "AsyncChatSession",
    "AsyncLLMClient",
    "AudioData",
    "AudioPart",
    "AuthError",
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatMessage",
    "ChatSession",
    "ChatStream",
    "Choice",
    "ChunkChoice",
    "ChunkDelta",
    "ConfigError",
    "ContentFiltered",
    "ContentPart",
    "ContextLengthExceeded",
    "ConversionReport",
    "EmbeddingData",
    "EmbeddingInput",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "EmbeddingUsage",
    "FallbackChain",
    "FinishReason",
    "FunctionCall",
    "FunctionCallDelta",
    "FunctionDefinition",
    "GGUFConfig",
    "GGUFProvider",
    "ImageDetail",
    "ImagePart",
    "ImageUrl",
    "JsonSchemaSpec",
    "LLMClient",
    "LLMError",
    "LLMProvider",
    "LLMResponseMetadata",
    "LLMRetryPolicy",
    "MessageContent",
    "ModelCapabilities",
    "ModelInfo",
    "ModelNotFound",
    "NetworkError",
    "Other",
    "ProviderNotSupported",
    "ProviderRegistry",
    "QuotaExceeded",
    "RateLimited",
    "ResponseFormat",
    "ResponseGatherer",
    "Role",
    "SerializationError",
    "SpecificToolChoice",
    "TextPart",
    "Timeout",
    "Timings",
    "TokenBudgetConfig",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolChoiceFunction",
    "Usage",
    "VideoData",
    "VideoPart",
    "convert",
    "gather",
    "load_provider",
    "normalize_schema",
    "split_chunk",
    "stream_violations",
]

__version__ = "0.1.0"

_HOMES = {
    "AsyncChatSession": "mofa_gguf.host",
    "AsyncLLMClient": "mofa_gguf.host",
    "ChatSession": "mofa_gguf.host",
    "ConversionReport": "mofa_gguf.convert.report",
    "FallbackChain": "mofa_gguf.host",
    "GGUFConfig": "mofa_gguf.settings",
    "GGUFProvider": "mofa_gguf.provider",
    "LLMClient": "mofa_gguf.host",
    "LLMRetryPolicy": "mofa_gguf.host",
    "ProviderRegistry": "mofa_gguf.host",
    "TokenBudgetConfig": "mofa_gguf.host",
    "load_provider": "mofa_gguf.host",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES.get(name, "mofa_gguf.contract")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
