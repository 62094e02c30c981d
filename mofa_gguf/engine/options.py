"""Plain values that say how a model is loaded and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CacheType = Literal["auto", "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]
Numa = Literal["off", "distribute", "isolate", "numactl"]
SplitMode = Literal["none", "layer", "row"]
Pooling = Literal["auto", "mean", "cls", "last"]
FlashAttention = Literal["auto", "on", "off"]
Probe = Literal["auto", "always", "never"]
Speculation = Literal["auto", "off", "prompt-lookup", "draft-model"]

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class LoraAdapter:
    """A GGUF adapter, and how strongly it counts (1: as it was trained)."""

    path: str
    scale: float = 1.0


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
    repack: bool = True
    """Whether llama.cpp may lay weights out anew for the CPU: faster, but a copy in memory."""
    hugepages: bool = True
    """Whether huge pages are asked for, for weights that are not mapped from the file."""
    numa: Numa = "off"
    """How threads are spread over a machine of several memory nodes; the first model decides."""
    rpc_servers: tuple[str, ...] = ()
    """Workers ("host:port") whose devices take layers, too."""
    pooling: Pooling = "auto"
    """How token vectors become one; "auto" is what the model's file says, else the mean."""
    n_embedding_batch: int = 2048
    """Most tokens embedded at once, and so the longest text (or the trained context, if less)."""
    max_parallel: int = 16
    """Requests that run at once; more wait."""
    max_queue: int = 64
    """Requests that may wait; one more is refused at once."""
    prefix_memory: int | Literal["auto"] = AUTO
    """Bytes of host memory for prefixes whose cells gave way to others; 0 keeps none of them."""
    speculation: Speculation = "auto"
    """Tokens guessed ahead, from what the text has said before or by a draft model: where that
    pays, never, or wherever there is such a guess. Requests with a seed are left out of "auto"."""
    draft_model: str | None = None
    """The GGUF file of a small model with the same vocabulary, which guesses tokens ahead."""
    lora: tuple[LoraAdapter, ...] = ()
    """Adapters that are added to the weights, for every request."""
    probe: Probe = "never"
    """Whether a process of its own loads a file first: where the checks in front of llama.cpp do
    not know its architecture through and through, always, or never. Once for each file."""
    dry_load: bool = True
    """Whether llama.cpp tells the sizes of its buffers before a load, instead of an estimate."""
    verdicts: str | None = None
    """The folder where it is kept which files have passed; None keeps it for this process."""

    @property
    def gpu_options(self) -> tuple[str, ...]:
        """Names of the options given here that only mean something with a GPU."""
        given = {
            "n_gpu_layers": self.n_gpu_layers not in (AUTO, 0),
            "tensor_split": bool(self.tensor_split),
            "main_gpu": self.main_gpu != 0,
            "split_mode": self.split_mode != "layer",
        }
        return tuple(name for name, is_given in given.items() if is_given)
