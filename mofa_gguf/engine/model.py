"""A model's weights in memory: loading, what was asked for and what was got."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mofa_gguf.engine.devices import Device, available_memory_bytes, gpus
from mofa_gguf.engine.errors import (
    DeviceUnavailable,
    InvalidOption,
    ModelFileError,
    OutOfMemory,
    UnsupportedModel,
)
from mofa_gguf.engine.header import GGUFHeader, read_header
from mofa_gguf.engine.native import llama, take_errors, weights_may_be_repacked
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.sizing import auto_gpu_layers
from mofa_gguf.engine.vocab import Vocab

logger = logging.getLogger(__name__)

POOLING_NAMES = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
# Our own key beside llama.cpp's: every id that ends a generation, as the checkpoint lists them.
EOS_IDS_KEY = "tokenizer.ggml.eos_token_ids"


@dataclass(frozen=True)
class Offload:
    """Layers on the GPU: how many were asked for, how many are there, and on which devices."""

    requested: int | str
    n_layers: int
    n_total: int
    devices: tuple[str, ...]


class Model:
    """Owner of a ``llama_model``. Contexts made from it must be closed first."""

    def __init__(
        self, path: Path, header: GGUFHeader, handle: Any, offload: Offload, buffers: object
    ) -> None:
        self.path = path
        self.header = header
        self.offload = offload
        self._buffers = buffers  # ctypes arrays that llama.cpp keeps pointers to
        self._handle = handle
        self._lock = threading.Lock()
        library = llama()
        self.vocab = Vocab(library.llama_model_get_vocab(handle), owner=self)
        self.n_ctx_train: int = library.llama_model_n_ctx_train(handle)
        self.n_embd: int = library.llama_model_n_embd(handle)
        self.n_layers: int = library.llama_model_n_layer(handle)
        self.n_parameters: int = library.llama_model_n_params(handle)
        self.n_bytes: int = library.llama_model_size(handle)
        self.description = self._describe()
        self.eog_ids = self._end_of_generation()

    @classmethod
    def load(
        cls,
        path: Path | str,
        options: EngineOptions,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Model:
        """Load the GGUF file at ``path``; blocks until its weights are there.

        ``progress`` is called with the loaded share, 0 to 1. Raises ModelFileError (or
        UnsupportedModel), DeviceUnavailable, InvalidOption or OutOfMemory.
        """
        path = Path(path)
        header = read_header(path)
        if not header.tensors:
            raise ModelFileError(path, "holds a vocabulary but no weights")
        offload = plan_offload(header, options)
        params, buffers = _model_params(options, offload, progress)
        take_errors()
        handle = llama().llama_model_load_from_file(str(path).encode(), params)
        if not handle:
            raise _load_error(path, header, take_errors())
        logger.info("loaded %s (%s)", path.name, header.architecture)
        return cls(path, header, handle, offload, buffers)

    @property
    def handle(self) -> Any:
        """``llama_model *``."""
        return self._handle

    @property
    def is_encoder(self) -> bool:
        """Whether the model only reads (BERT and its kin): it embeds, but cannot generate."""
        return self.header.hyperparameter("attention.causal", True) is False

    @property
    def pooling(self) -> str | None:
        """How the model's file says that token vectors are pooled; None where it says nothing."""
        value = self.header.hyperparameter("pooling_type")
        return POOLING_NAMES.get(value) if isinstance(value, int) else None

    def close(self) -> None:
        """Free the weights; may be called twice."""
        with self._lock:
            if self._handle:
                llama().llama_model_free(self._handle)
                self._handle = None

    def _describe(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama().llama_model_desc(self._handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

    def _end_of_generation(self) -> frozenset[int]:
        listed = self.header.metadata.get(EOS_IDS_KEY, [])
        own = {i for i in listed if isinstance(i, int) and 0 <= i < self.vocab.n_tokens}
        known = (i for i in range(self.vocab.n_tokens) if self.vocab.is_eog(i))
        return frozenset(own.union(known))


def plan_offload(header: GGUFHeader, options: EngineOptions) -> Offload:
    """Decide how many layers go to the GPU.

    Raises DeviceUnavailable when a GPU is required and there is none.
    """
    found = gpus()
    n_total = int(header.hyperparameter("block_count", 0)) + 1
    requested = options.n_gpu_layers
    if not found:
        if options.require_gpu:
            raise DeviceUnavailable(
                "a GPU is required (require_gpu) but this build of llama.cpp finds none; "
                "install a GPU build of llama-cpp-python or set require_gpu to false"
            )
        if requested not in ("auto", 0):
            logger.warning(
                "n_gpu_layers=%s has no effect: this build of llama.cpp finds no GPU", requested
            )
        return Offload(requested, 0, n_total, ())
    if requested == "auto":
        n_layers = _auto_layers(header, found, n_total)
    elif requested == "all" or (isinstance(requested, int) and requested < 0):
        n_layers = n_total
    else:
        n_layers = min(int(requested), n_total)
    names = tuple(device.name for device in found) if n_layers else ()
    return Offload(requested, n_layers, n_total, names)


def _auto_layers(header: GGUFHeader, found: list[Device], n_total: int) -> int:
    free = sum(device.free_bytes for device in found)
    return auto_gpu_layers(n_total - 1, weights_bytes=header.n_tensor_bytes, free_bytes=free)


def _model_params(
    options: EngineOptions, offload: Offload, progress: Callable[[float], None] | None
) -> tuple[Any, object]:
    library = llama()
    params = library.llama_model_default_params()
    params.n_gpu_layers = offload.n_layers
    params.main_gpu = options.main_gpu
    params.split_mode = _SPLIT_MODES[options.split_mode]
    # llama.h, enum llama_load_mode: bit 0 maps the file, bit 1 locks it in memory.
    params.load_mode = int(options.use_mmap) | int(options.use_mlock) << 1
    params.use_extra_bufts = weights_may_be_repacked()
    keep: list[object] = []
    if options.tensor_split:
        n_devices = library.llama_max_devices()
        if len(options.tensor_split) > n_devices:
            raise InvalidOption(
                "tensor_split", f"names {len(options.tensor_split)} devices of {n_devices}"
            )
        split = (ctypes.c_float * n_devices)(*options.tensor_split)
        params.tensor_split = split
        keep.append(split)
    if progress is not None:

        def report(share: float, _user_data: object) -> bool:
            progress(share)
            return True

        callback = library.llama_progress_callback(report)
        params.progress_callback = callback
        keep.append(callback)
    return params, keep


def _load_error(path: Path, header: GGUFHeader, reasons: list[str]) -> Exception:
    """The error for a load that llama.cpp refused, told from what it logged."""
    text = " ".join(reasons)
    lowered = text.lower()
    if "unknown model architecture" in lowered:
        return UnsupportedModel(
            path,
            f"this version of llama.cpp cannot run the architecture {header.architecture!r}",
            architecture=header.architecture,
        )
    if any(sign in lowered for sign in ("out of memory", "failed to allocate", "unable to alloc")):
        needed, free = header.n_tensor_bytes / 2**30, available_memory_bytes() / 2**30
        return OutOfMemory(
            f"{path.name} needs {needed:.1f} GiB for its weights and {free:.1f} GiB are free; "
            "use a smaller quantization or fewer n_gpu_layers"
        )
    return ModelFileError(path, f"llama.cpp could not load it ({text or 'it gave no reason'})")


def refuse_encoder_decoder(model: Model) -> None:
    """Raises UnsupportedModel for what needs an encoder's output to generate (T5 and its kin)."""
    library = llama()
    if library.llama_model_has_encoder(model.handle) and library.llama_model_has_decoder(
        model.handle
    ):
        raise UnsupportedModel(
            model.path,
            f"{model.header.architecture} is an encoder-decoder model, which cannot be run here",
            architecture=model.header.architecture,
        )
