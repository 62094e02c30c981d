"""llama.cpp's own account of the memory that a model will take, without taking it.

With ``no_alloc`` llama.cpp reads a file's metadata, builds the graphs and computes how large every
buffer would be. Its C API has no function that gives the sizes (only a C++ one does), but it logs
them while contexts are made: that is where they are read from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mofa_gguf.engine.native import llama, logged
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.context_params import ContextShape, context_params

_MIB = 2**20
_COMPUTE = re.compile(r"(\S+)\s+compute buffer size =\s*([\d.]+) MiB")
_OUTPUT = re.compile(r"output buffer size =\s*([\d.]+) MiB")
_CACHE = re.compile(r"llama_kv_cache\w*: size =\s*([\d.]+) MiB")
_STATES = re.compile(r"llama_memory_recurrent\w*: size =\s*([\d.]+) MiB")
_NO_MAPPING = 0  # enum llama_load_mode: neither mapped nor locked


@dataclass(frozen=True)
class Buffers:
    """What one context would take, in bytes; the log rounds to 0.01 MiB."""

    compute: dict[str, int]
    """By the name of the backend's buffers: "CPU", "CUDA0", ..."""
    output: int
    cache: int
    states: int

    @property
    def host_compute(self) -> int:
        """The part of the compute buffers that lies in the host's memory."""
        return sum(n for name, n in self.compute.items() if _is_host(name))

    @property
    def largest_compute(self) -> int:
        """The compute buffers of the host or of the device with the largest one."""
        others = (n for name, n in self.compute.items() if not _is_host(name))
        return max(self.host_compute, *others, 0)


class DryModel:
    """Owner of a model without weights. Use it as a context manager."""

    def __init__(self, path: bytes, params: Any) -> None:
        params.no_alloc = True
        params.load_mode = _NO_MAPPING
        self._handle = llama().llama_model_load_from_file(path, params)

    def __enter__(self) -> DryModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def loaded(self) -> bool:
        """Whether llama.cpp could read the file: the load itself will tell why not."""
        return bool(self._handle)

    @property
    def shares(self) -> bool:
        """Whether the model's memory can share cells (see ``models.model.can_share``)."""
        library = llama()
        return not (
            library.llama_model_is_recurrent(self._handle)
            or library.llama_model_is_hybrid(self._handle)
        )

    def measure(self, options: EngineOptions, shape: ContextShape) -> Buffers | None:
        """What a context of this shape would take, or None if llama.cpp cannot make one."""
        library = llama()
        with logged() as lines:
            context = library.llama_init_from_model(self._handle, context_params(options, shape))
            if not context:
                return None
            library.llama_free(context)
        return read_log(lines)

    def close(self) -> None:
        """Free the model; may be called twice."""
        if self._handle:
            llama().llama_model_free(self._handle)
            self._handle = None


def read_log(lines: Iterable[str]) -> Buffers | None:
    """The sizes that llama.cpp logged while it made a context; None if it named none."""
    compute: dict[str, int] = {}
    output = cache = states = 0
    for line in lines:
        if found := _COMPUTE.search(line):
            compute[found[1]] = compute.get(found[1], 0) + _bytes(found[2])
        elif found := _OUTPUT.search(line):
            output += _bytes(found[1])
        elif found := _CACHE.search(line):
            cache += _bytes(found[1])
        elif found := _STATES.search(line):
            states += _bytes(found[1])
    return Buffers(compute, output, cache, states) if compute else None


def _bytes(mib: str) -> int:
    return round(float(mib) * _MIB)


def _is_host(name: str) -> bool:
    """Whether a buffer of this name lies in the host's memory ("CPU", "CUDA_Host")."""
    return name.startswith("CPU") or name.endswith("_Host") or name == "BLAS"
