"""LoRA adapters in GGUF files, loaded beside a model and applied to every context made from it.

The plan of a load has checked them before (:mod:`mofa_gguf.engine.planning.adapters`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.native import llama, take_errors
from mofa_gguf.engine.options import LoraAdapter


class LoadedAdapters(NamedTuple):
    """Adapters of one model; llama.cpp frees them together with it."""

    handles: tuple[Any, ...] = ()
    scales: tuple[float, ...] = ()

    def apply(self, context: Any) -> None:
        """Let a ``llama_context`` compute with the adapters."""
        if not self.handles:
            return
        library, n = llama(), len(self.handles)
        handles = (library.llama_adapter_lora_p_ctypes * n)(*self.handles)
        library.llama_set_adapters_lora(context, handles, n, (ctypes.c_float * n)(*self.scales))


def load_adapters(model: Any, adapters: Sequence[LoraAdapter]) -> LoadedAdapters:
    """Load adapters, which must be ones for this ``llama_model``. Raises ModelFileError."""
    handles = []
    for adapter in adapters:
        take_errors()
        handle = llama().llama_adapter_lora_init(model, os.fsencode(adapter.path))
        if not handle:
            reason = "; ".join(take_errors()) or "it gave no reason"
            raise ModelFileError(adapter.path, f"llama.cpp could not load the adapter ({reason})")
        handles.append(handle)
    return LoadedAdapters(tuple(handles), tuple(adapter.scale for adapter in adapters))
