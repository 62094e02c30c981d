"""What ``mofa-gguf doctor`` looks at. Each check gives findings and never raises what it finds."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mofa_gguf.cli.errors import one_line
from mofa_gguf.cli.output import size, unlogged

if TYPE_CHECKING:
    from mofa_gguf.host import LLMConfig, ProviderRegistry

Verdict = Literal["ok", "note", "broken"]

_OUR_KINDS = frozenset({"gguf", "llama-cpp", "gguf-local"})

# Programs that come with a GPU's driver, and the option that builds llama.cpp for it.
_GPU_PROGRAMS = {"nvidia-smi": "-DGGML_CUDA=on", "rocm-smi": "-DGGML_HIP=on"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``advice`` says what to do about a note or a fault."""

    what: str
    verdict: Verdict
    detail: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


_NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"


def examine(config: Path | None = None) -> list[Finding]:
    """Every finding, in the order in which things build on each other."""
    from mofa_gguf.host import ProviderRegistry

    registry = ProviderRegistry()
    return [
        *machine(),
        *llama_cpp(),
        *cache(),
        *plugins(registry),
        *configuration(config, registry),
    ]


def machine() -> list[Finding]:
    """Python, system, cores and memory."""
    from mofa_gguf import __version__
    from mofa_gguf.engine.machine.devices import default_threads, memory_and_limit

    version = ".".join(str(n) for n in sys.version_info[:3])
    free, limit = memory_and_limit()
    return [
        Finding("mofa-gguf", "ok", f"{__version__} on Python {version}"),
        Finding(
            "machine",
            "ok",
            f"{platform.system()} {platform.machine()}, {default_threads()} cores to use, "
            f"{size(free)} of memory to take ({limit})",
        ),
    ]


def llama_cpp() -> list[Finding]:
    """Whether llama.cpp loads, what it was built for, and the GPUs it sees."""
    from importlib.metadata import PackageNotFoundError, version

    from mofa_gguf.engine.machine.devices import gpus, has_amx_kernels, list_devices, system_info
    from mofa_gguf.engine.machine.rpc import has_rpc

    try:
        info = system_info()
        devices = list_devices()
        graphics = gpus()
        release = version("llama-cpp-python")
    except (ImportError, OSError, PackageNotFoundError, RuntimeError) as error:
        advice = "reinstall it: pip install --force-reinstall --no-cache-dir llama-cpp-python"
        return [Finding("llama.cpp", "broken", f"does not load ({one_line(error)})", advice)]
    findings = [
        Finding("llama.cpp", "ok", f"llama-cpp-python {release}; {cpu_features(info)}"),
    ]
    if has_amx_kernels():
        findings.append(
            Finding(
                "CPU kernels",
                "note",
                "built with AMX, which GCC 12 compiles wrongly, so weights are not laid out anew "
                "for this CPU and run slower",
                f'build without: CFLAGS="{_NO_AMX}" CXXFLAGS="{_NO_AMX}" '
                "pip install --force-reinstall --no-cache-dir llama-cpp-python",
            )
        )
    if has_rpc():
        detail = "this build can use the devices of other machines (rpc_servers)"
        findings.append(Finding("workers", "ok", detail))
    for device in graphics:
        memory = f"{size(device.free_bytes)} of {size(device.total_bytes)} free"
        findings.append(Finding("GPU", "ok", f"{device.name}: {device.description}, {memory}"))
    if not graphics:
        names = ", ".join(device.name for device in devices)
        findings.append(no_gpu(f"none that this build of llama.cpp can use (it has {names})"))
    return findings


def no_gpu(detail: str) -> Finding:
    """The finding for a machine, or a build, without a usable GPU."""
    for program, option in _GPU_PROGRAMS.items():
        if shutil.which(program):
            advice = (
                f"{program} is here, so there seems to be a GPU: build llama.cpp for it with "
                f'CMAKE_ARGS="{option}" pip install --force-reinstall --no-cache-dir '
                "llama-cpp-python"
            )
            return Finding("GPU", "note", detail, advice)
    return Finding("GPU", "ok", f"{detail}; models run on the CPU")


def cpu_features(info: str) -> str:
    """llama.cpp's line on its build, reduced to what is on."""
    features = []
    for part in info.replace(":", "|").split("|"):
        name, _, value = part.partition("=")
        if value.strip() == "1":
            features.append(name.strip())
    return "built for " + (", ".join(features) if features else "any CPU")


def cache() -> list[Finding]:
    """Whether the cache folder can be written, and what it holds."""
    from mofa_gguf.store import cache_folder, usage

    folder = cache_folder()
    advice = "set MOFA_GGUF_CACHE_DIR to a folder that can be written"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        if existing == folder:
            with tempfile.TemporaryFile(dir=folder):
                pass
        elif not existing.is_dir() or not os.access(existing, os.W_OK):
            raise PermissionError(f"{existing} cannot be written")
        held = usage()
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return [Finding("cache", "broken", f"{folder}: {error.strerror or error}", advice)]
    models = f"{len(held.models)} converted model{'' if len(held.models) == 1 else 's'}"
    holds = f"{models}, {size(held.n_bytes)}" if existing == folder else "not made yet"
    return [Finding("cache", "ok", f"{folder}: {holds}; {size(free)} free on its disk")]


def plugins(registry: ProviderRegistry) -> list[Finding]:
    """The provider kinds there are, and the plugins that do not work."""
    with unlogged("mofa_gguf.host.registry"):
        registry.discover()
    kinds = ", ".join(sorted(entry.kind for entry in registry.kinds()))
    findings = [Finding("provider kinds", "ok" if kinds else "broken", kinds or "none at all")]
    if not kinds:
        advice = "reinstall mofa-gguf: its entry point in the group 'mofa' is missing"
        findings = [Finding("provider kinds", "broken", "none at all", advice)]
    for problem in registry.problems:
        advice = "repair or uninstall that plugin; the others work without it"
        findings.append(Finding("plugin", "broken", str(problem), advice))
    return findings


def configuration(path: Path | None, registry: ProviderRegistry) -> list[Finding]:
    """The config file, and whether each provider in it can answer."""
    from mofa_gguf.contract import ConfigError
    from mofa_gguf.host import find_config, load_config

    try:
        file = find_config(path)
    except ConfigError as error:
        if path is None and "MOFA_CONFIG" not in os.environ:
            advice = "write a mofa.toml, or name models on the command line"
            return [Finding("config file", "note", "none", advice)]
        return [Finding("config file", "broken", error.message)]
    try:
        config = load_config(file)
    except ConfigError as error:
        return [Finding("config file", "broken", error.message, "correct the file")]
    names = ", ".join(config.providers)
    findings = [Finding("config file", "ok", f"{file}: {names}")]
    for name, options in config.providers.items():
        planned = plan(name, options) if options.provider in _OUR_KINDS else None
        if planned is not None:
            findings.append(planned)
        # What does not fit would only be refused.
        if planned is None or planned.verdict != "broken":
            findings.append(provider(name, options, registry))
    return findings


def plan(name: str, options: LLMConfig) -> Finding | None:
    """Whether the model of one of our own providers fits; None if that can't be told.

    What else is wrong with it, loading it will say.
    """
    from mofa_gguf.cli.planning import plan_for
    from mofa_gguf.contract import LLMError
    from mofa_gguf.convert.errors import ConversionError
    from mofa_gguf.engine.errors import EngineError
    from mofa_gguf.settings import GGUFConfig
    from mofa_gguf.store.errors import StoreError

    try:
        config = GGUFConfig.from_options(options.options(), options.base_dir)
        load = plan_for(config)
    except (LLMError, EngineError, StoreError, ConversionError):
        return None
    what, planned = f"plan for {name!r}", load.plan
    if planned.problem is not None:
        advice = "; ".join(planned.remedies) or "free memory, or choose a smaller model"
        return Finding(what, "broken", f"{planned.problem} ({load.limit})", advice)
    shares = (planned.host, *planned.devices)
    takes = ", ".join(f"{size(s.n_bytes)} of {size(s.available)} on {s.device}" for s in shares)
    detail = f"{takes}; {planned.n_ctx} tokens of context"
    if planned.devices:
        detail += f", {planned.n_gpu_layers} of {planned.n_total} layers offloaded"
    return Finding(what, "ok", detail)


def provider(name: str, options: LLMConfig, registry: ProviderRegistry) -> Finding:
    """Whether a provider can be made and says that it is healthy. Loads its model."""
    import anyio

    from mofa_gguf.contract import LLMError, ProviderNotSupported

    what = f"provider {name!r}"

    async def check() -> Finding:
        started = time.monotonic()
        async with registry.create(options) as made:
            model = made.default_model()
            about = f"{options.provider}, {model or 'no default model'}"
            try:
                info = await made.get_model_info(model)
                about = f"{options.provider}, {info.name}"
                if info.context_window:
                    about += f", {info.context_window} tokens of context"
            except ProviderNotSupported as error:
                # It may be healthy and only have nothing to say of its models.
                if not await made.health_check():
                    return Finding(what, "broken", one_line(error))
            if not await made.health_check():
                return Finding(what, "broken", f"{about}: it says it is not healthy")
            return Finding(what, "ok", f"{about}, ready in {time.monotonic() - started:.1f} s")

    try:
        with unlogged("mofa_gguf.provider"):
            return anyio.run(check)
    except LLMError as error:
        return Finding(what, "broken", one_line(error))
