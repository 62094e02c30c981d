"""Plain values that say how a model is loaded and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]
SplitMode = Literal["none", "layer", "row"]
Pooling = Literal["auto", "mean", "cls", "last"]
FlashAttention = Literal["auto", "on", "off"]

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class EngineOptions:
    """How one model is loaded. ``settings.GGUFConfig`` is where users set these."""

    n_ctx: int | Literal["auto"] = AUTO
    """Tokens the KV cache holds; "auto" is what the model was trained for, bounded by memory."""
    n_batch: int = 512
    """Most tokens in one call of ``llama_decode``."""
    n_threads: int | None = None
    """Threads of a decode step; None takes the physical cores this process may use."""
    n_threads_batch: int | None = None
    """Threads of prefill; None takes as many as ``n_threads``."""
    n_gpu_layers: int | Literal["auto", "all"] = AUTO
    require_gpu: bool = False
    main_gpu: int = 0
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] = ()
    flash_attn: FlashAttention = "auto"
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    use_mmap: bool = True
    use_mlock: bool = False
    pooling: Pooling = "auto"
    """How token vectors become one; "auto" is what the model's file says, else the mean."""
    n_embedding_batch: int = 2048
    """Most tokens embedded at once, and so the longest text (or the trained context, if less)."""
    max_parallel: int = 16
    """Requests that run at once; more wait."""
    max_queue: int = 64
    """Requests that may wait; one more is refused at once."""
