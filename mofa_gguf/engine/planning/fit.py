"""A plan for a file on this machine: facts, dry load, devices and limits put together."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mofa_gguf.engine.errors import DeviceUnavailable, InvalidOption
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.files.vetting import vet
from mofa_gguf.engine.machine.devices import Device, gpus
from mofa_gguf.engine.machine.memory import HostMemory, Room, host_memory
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.facts import all_tensors, model_facts
from mofa_gguf.engine.planning.load_plan import LoadPlan
from mofa_gguf.engine.planning.planner import Planner
from mofa_gguf.engine.planning.sizing import trained_context

logger = logging.getLogger(__name__)

_ANYTHING = 2**60


def plan_load(
    header: GGUFHeader,
    options: EngineOptions,
    *,
    devices: Sequence[Device] | None = None,
    memory: HostMemory | None = None,
    device_share: float = 1.0,
) -> LoadPlan:
    """The plan for loading a file with these options, here and now.

    ``devices`` and ``memory`` replace what the machine says of itself; ``device_share`` is the
    part of the devices' free memory that may be taken. Raises ModelFileError for a file that
    llama.cpp should not see (:func:`vet`), DeviceUnavailable if a GPU is required and there is
    none, and InvalidOption.
    A plan that does not fit is returned; :meth:`LoadPlan.check` refuses it.
    """
    vet(header, options)
    tensors = all_tensors(header)
    facts, adapters = model_facts(header, tensors), None
    if options.lora:
        from mofa_gguf.engine.planning.adapters import adapter_facts

        adapters = adapter_facts(header, tensors, options.lora)
        facts = adapters.added_to(facts)
    if devices is None:
        devices = [*gpus(), *_workers(options.rpc_servers)]
    found = usable_devices(options, devices)
    memory = memory or host_memory()
    planner = Planner(header.path, facts, tensors, options, found, memory, device_share, adapters)
    loads = [planner.plan(use_mmap=use_mmap) for use_mmap in planner.mappings()]
    # Where none fits, the one that is told is the one that misses least.
    return next((load for load in loads if load.plan.fits), max(loads, key=_spare_bytes))


def _workers(servers: Sequence[str]) -> list[Device]:
    if not servers:
        return []
    from mofa_gguf.engine.machine.rpc import worker_devices

    return worker_devices(servers)


def _spare_bytes(load: LoadPlan) -> int:
    host = load.plan.host
    return host.available - host.n_bytes


def plan_unbounded(header: GGUFHeader, *, n_ctx: int | None = None) -> LoadPlan:
    """What a model takes where nothing is short and there is no GPU, with ``n_ctx`` tokens.

    By default as many as it was trained for. Raises ModelFileError.
    """
    options = EngineOptions(n_ctx=n_ctx or trained_context(header))
    return plan_load(header, options, devices=(), memory=HostMemory(Room(_ANYTHING, "no limit")))


def usable_devices(options: EngineOptions, found: Sequence[Device]) -> tuple[Device, ...]:
    """The devices that layers may go to, those of this machine first.

    As llama.cpp does: integrated graphics only where there is nothing else; with the split mode
    "none" the main GPU alone.
    """
    proper = [device for device in found if device.kind in ("gpu", "rpc")]
    devices = proper or [device for device in found if device.kind == "igpu"]
    devices.sort(key=lambda device: device.kind == "rpc")
    if options.require_gpu and not devices:
        raise DeviceUnavailable(
            "a GPU is required (require_gpu) but this build of llama.cpp finds none; "
            "install a GPU build of llama-cpp-python or set require_gpu to false"
        )
    if not devices:
        _say_once(options)
    if len(options.tensor_split) > len(devices) > 0:
        raise InvalidOption(
            "tensor_split", f"names {len(options.tensor_split)} devices of {len(devices)}"
        )
    if devices and options.split_mode == "none":
        if options.main_gpu >= len(devices):
            known = ", ".join(device.name for device in devices)
            raise InvalidOption("main_gpu", f"is {options.main_gpu}, but there are only {known}")
        devices = [devices[options.main_gpu]]
    return tuple(devices)


_said: set[str] = set()


def _say_once(options: EngineOptions) -> None:
    """Options that ask for a GPU, in a build that finds none: once for each of them."""
    missing = "this build of llama.cpp finds no GPU"
    if options.rpc_servers:
        missing += ", and no worker is there"
    for name in options.gpu_options:
        # A split is a list that would fill the line.
        option = name if name == "tensor_split" else f"{name}={getattr(options, name)}"
        if option not in _said:
            _said.add(option)
            logger.warning("%s has no effect: %s", option, missing)
