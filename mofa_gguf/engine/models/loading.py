"""Loading a model: plan, refuse or load, and try again with less where a device fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from mofa_gguf.engine.errors import (
    DeviceLost,
    DeviceUnavailable,
    EngineError,
    ModelFileError,
    OutOfMemory,
    UnsupportedModel,
)
from mofa_gguf.engine.files.header import GGUFHeader, read_header
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.fit import plan_load
from mofa_gguf.engine.planning.ledger import Reservation
from mofa_gguf.engine.planning.load_plan import LoadPlan

logger = logging.getLogger(__name__)

_FEWER = 0.6
_NUMA = {"distribute": 1, "isolate": 2, "numactl": 3}  # enum ggml_numa_strategy

_BuiltT = TypeVar("_BuiltT")
_numa_lock = threading.Lock()
_numa: list[str] = []


def load_model(
    path: Path | str | GGUFHeader,
    options: EngineOptions,
    build: Callable[[Model, LoadPlan], _BuiltT],
    *,
    progress: Callable[[float], None] | None = None,
) -> _BuiltT:
    """Load the GGUF file at ``path`` and ``build`` what runs it; blocks.

    A header that was read already may stand for its file, which is not read again then.
    Where a device fails, it is tried again with fewer layers there, at last with none. Raises
    ModelFileError, UnsupportedModel, DeviceUnavailable, InvalidOption or OutOfMemory, the last one
    mostly before anything is loaded.
    """
    header = path if isinstance(path, GGUFHeader) else read_header(path)
    _spread_threads(options)
    asked = options
    while True:
        load = plan_load(header, options)._replace(requested_layers=asked.n_gpu_layers)
        load.check()
        try:
            return _attempt(header, load, build, progress)
        except (OutOfMemory, DeviceLost, ModelFileError) as error:
            n_layers = _next_try(error, load, asked)
            logger.warning(
                "%s could not be loaded with %d of %d layers on %s (%s); trying %d",
                header.path.name,
                load.plan.n_gpu_layers,
                load.plan.n_total,
                ", ".join(load.placing.devices),
                error,
                n_layers,
            )
            if n_layers < load.plan.n_gpu_layers:
                options = replace(options, n_gpu_layers=n_layers)


def _attempt(
    header: GGUFHeader,
    load: LoadPlan,
    build: Callable[[Model, LoadPlan], _BuiltT],
    progress: Callable[[float], None] | None,
) -> _BuiltT:
    reservation = Reservation(load.all_bytes)
    try:
        model = Model.load(header, load, progress=progress)
        model.reservation = reservation
        try:
            built = build(model, load)
        except BaseException:
            model.close()
            raise
    except BaseException:
        reservation.release()
        raise
    reservation.settle(load.unseen_bytes)
    return built


def _next_try(error: EngineError, load: LoadPlan, asked: EngineOptions) -> int:
    """How many layers to try on devices after ``error``; raises it if nothing else is left."""
    n_layers = load.plan.n_gpu_layers
    if not n_layers or isinstance(error, UnsupportedModel):
        raise error
    if isinstance(error, DeviceLost):
        return n_layers  # the next plan leaves the lost one out
    fewer = int(n_layers * _FEWER) if isinstance(error, OutOfMemory) else 0
    if not fewer and asked.require_gpu:
        raise DeviceUnavailable(
            f"a GPU is required (require_gpu), but {', '.join(load.placing.devices)} cannot hold "
            f"a single layer: {error}"
        ) from error
    return fewer


def _spread_threads(options: EngineOptions) -> None:
    """Set up NUMA, which llama.cpp does once for the process."""
    if options.numa == "off":
        return
    with _numa_lock:
        if not _numa:
            llama().llama_numa_init(_NUMA[options.numa])
            _numa.append(options.numa)
        elif _numa[0] != options.numa:
            logger.warning(
                "numa=%s has no effect: another model has set it to %s", options.numa, _numa[0]
            )
