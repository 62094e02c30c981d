"""llama.cpp's parameters for loading a model, from the options and from where its layers go."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from mofa_gguf.engine.machine.amx import weights_may_be_repacked
from mofa_gguf.engine.machine.backends import buffer_type, cpu_device
from mofa_gguf.engine.machine.devices import device_handle
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.facts import EXPERTS_PATTERN

_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}


class Placing(NamedTuple):
    """Where a model's layers go."""

    n_gpu_layers: int = 0
    devices: tuple[str, ...] = ()
    """Devices that get layers; no others are touched."""
    split: tuple[float, ...] = ()
    """Layers for each of them."""
    cpu_experts: tuple[int, ...] = ()
    """Offloaded layers whose experts stay with the CPU."""


class _Override(ctypes.Structure):
    """``struct llama_model_tensor_buft_override``."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def model_params(
    options: EngineOptions, placing: Placing, *, use_mmap: bool
) -> tuple[Any, list[object]]:
    """``llama_model_params``, and what must live as long as the model does."""
    library = llama()
    params = library.llama_model_default_params()
    params.n_gpu_layers = placing.n_gpu_layers
    params.main_gpu = 0  # of the devices below
    params.split_mode = _SPLIT_MODES[options.split_mode] if len(placing.devices) > 1 else 1
    # llama.h, enum llama_load_mode: bit 0 maps the file, bit 1 locks it in memory.
    params.load_mode = int(use_mmap) | int(options.use_mlock) << 1
    params.use_extra_bufts = options.repack and weights_may_be_repacked()
    handles = [device_handle(name) for name in placing.devices]
    devices = (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
    params.devices = ctypes.cast(devices, ctypes.c_void_p)
    keep: list[object] = [devices]
    if placing.split:
        split = (ctypes.c_float * library.llama_max_devices())(*placing.split)
        params.tensor_split = split
        keep.append(split)
    if placing.cpu_experts:
        overrides = _keep_experts_on_cpu(placing.cpu_experts)
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
        keep.append(overrides)
    return params, keep


def _keep_experts_on_cpu(layers: tuple[int, ...]) -> ctypes.Array[_Override]:
    numbers = "|".join(map(str, layers))
    pattern = rf"^blk\.({numbers})" + EXPERTS_PATTERN
    # A list that ends with an empty entry.
    return (_Override * 2)(_Override(pattern.encode(), buffer_type(cpu_device())), _Override())
