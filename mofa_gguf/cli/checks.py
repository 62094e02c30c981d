"""What ``mofa-gguf doctor`` looks at. Each check gives findings and never raises what it finds."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mofa_gguf.cli.findings import Finding
from mofa_gguf.cli.output import size, unlogged

if TYPE_CHECKING:
    from mofa_gguf.host import ProviderRegistry

# Programs that come with a GPU's driver, and the option that builds llama.cpp for it.
_GPU_PROGRAMS = {"nvidia-smi": "-DGGML_CUDA=on", "rocm-smi": "-DGGML_HIP=on"}


# The optional extras of the distribution, each with a package that it brings.
_EXTRAS = {"serve": "starlette", "otel": "opentelemetry"}


def examine(config: Path | None = None) -> list[Finding]:
    """Every finding, in the order in which things build on each other."""
    from mofa_gguf.cli.configured import configuration
    from mofa_gguf.host import ProviderRegistry

    registry = ProviderRegistry()
    return [
        *machine(),
        *llama_cpp(),
        extras(),
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

    from mofa_gguf.engine.errors import LibraryUnavailable
    from mofa_gguf.engine.machine.devices import (
        gpus,
        has_broken_amx_kernels,
        has_half_precision_kernels,
        list_devices,
        system_info,
    )
    from mofa_gguf.engine.machine.rpc import has_rpc

    try:
        info = system_info()
        devices = list_devices()
        graphics = gpus()
    except LibraryUnavailable as error:
        return [Finding("llama.cpp", "broken", f"does not load ({error.problem})", error.remedy)]
    try:
        release = version("llama-cpp-python")
    except PackageNotFoundError:
        release = "of an unknown version"
    findings = [
        Finding("llama.cpp", "ok", f"llama-cpp-python {release}; {cpu_features(info)}"),
    ]
    if has_broken_amx_kernels():
        detail = (
            "built with AMX by a compiler that gets it wrong, so weights are not laid out anew "
            "for this CPU and answers take twice as long"
        )
        findings.append(_build_anew(detail))
    if has_half_precision_kernels():
        detail = (
            "built with AVX512-FP16, where flash attention is slow for heads of 64 and not taken, "
            "so prompts take up to twice as long with many streams"
        )
        findings.append(_build_anew(detail))
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


def _build_anew(detail: str) -> Finding:
    from mofa_gguf.engine.machine.devices import compiler_flags

    flags = compiler_flags()
    advice = (
        f'build it anew: CFLAGS="{flags}" CXXFLAGS="{flags}" '
        "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
    )
    return Finding("CPU kernels", "note", detail, advice)


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


def extras() -> Finding:
    """Which of our optional parts can be used."""
    missing = [name for name, package in _EXTRAS.items() if find_spec(package) is None]
    here = ", ".join(name for name in _EXTRAS if name not in missing) or "none"
    if not missing:
        return Finding("extras", "ok", here)
    advice = f"for {' and '.join(missing)}: pip install 'mofa-gguf[{','.join(missing)}]'"
    return Finding("extras", "ok", f"{here}; not installed: {', '.join(missing)}", advice)


def cache(given: Path | None = None) -> list[Finding]:
    """Whether the cache folder can be written, and what it holds; ``given`` is a configured one."""
    from mofa_gguf.store import cache_folder, usage

    folder = cache_folder(given)
    name = "MOFA_GGUF_CACHE_DIR" if given is None else "cache_dir"
    advice = f"set {name} to a folder that can be written"
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        if existing == folder:
            with tempfile.TemporaryFile(dir=folder):
                pass
        elif not existing.is_dir() or not os.access(existing, os.W_OK):
            raise PermissionError(f"{existing} cannot be written")
        held = usage(given)
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
