"""MoFA's LLM contract in Python: messages, requests, responses, errors and ``LLMProvider``.

Names, fields, defaults and JSON shape are those of MoFA's ``mofa-foundation`` crate
(``crates/mofa-foundation/src/llm`` in mofa-org/mofa), so JSON written by one side is read by the
other. This package imports nothing else of ours.
"""

from __future__ import annotations

from mofa_gguf.contract.chunks import (
    ChatCompletionChunk,
    ChunkChoice,
    ChunkDelta,
    FunctionCallDelta,
    ToolCallDelta,
)
from mofa_gguf.contract.embeddings import (
    EmbeddingData,
    EmbeddingInput,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
)
from mofa_gguf.contract.errors import (
    ApiError,
    AuthError,
    ConfigError,
    ContentFiltered,
    ContextLengthExceeded,
    LLMError,
    ModelNotFound,
    NetworkError,
    Other,
    ProviderNotSupported,
    QuotaExceeded,
    RateLimited,
    SerializationError,
    Timeout,
)
from mofa_gguf.contract.messages import (
    AudioData,
    AudioPart,
    ChatMessage,
    ContentPart,
    ImageDetail,
    ImagePart,
    ImageUrl,
    MessageContent,
    Role,
    TextPart,
    VideoData,
    VideoPart,
)
from mofa_gguf.contract.models import ModelCapabilities, ModelInfo
from mofa_gguf.contract.provider import ChatStream, LLMProvider
from mofa_gguf.contract.requests import ChatCompletionRequest, JsonSchemaSpec, ResponseFormat
from mofa_gguf.contract.responses import (
    ChatCompletionResponse,
    Choice,
    FinishReason,
    LLMResponseMetadata,
    Timings,
    Usage,
)
from mofa_gguf.contract.streaming import ResponseGatherer, gather, split_chunk, stream_violations
from mofa_gguf.contract.tools import (
    AnyToolChoice,
    FunctionCall,
    FunctionDefinition,
    SpecificToolChoice,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceFunction,
    normalize_schema,
)

__all__ = [
    "AnyToolChoice",
    "ApiError",
    "AudioData",
    "AudioPart",
    "AuthError",
    "ChatCompletionChunk",
    "ChatCompletionRequest",
    "ChatCompletionResponse",
    "ChatMessage",
    "ChatStream",
    "Choice",
    "ChunkChoice",
    "ChunkDelta",
    "ConfigError",
    "ContentFiltered",
    "ContentPart",
    "ContextLengthExceeded",
    "EmbeddingData",
    "EmbeddingInput",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "EmbeddingUsage",
    "FinishReason",
    "FunctionCall",
    "FunctionCallDelta",
    "FunctionDefinition",
    "ImageDetail",
    "ImagePart",
    "ImageUrl",
    "JsonSchemaSpec",
    "LLMError",
    "LLMProvider",
    "LLMResponseMetadata",
    "MessageContent",
    "ModelCapabilities",
    "ModelInfo",
    "ModelNotFound",
    "NetworkError",
    "Other",
    "ProviderNotSupported",
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
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolChoiceFunction",
    "Usage",
    "VideoData",
    "VideoPart",
    "gather",
    "normalize_schema",
    "split_chunk",
    "stream_violations",
]
