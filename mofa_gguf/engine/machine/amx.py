"""Whether this build's AMX kernels are sound, read from the library itself.

GCC's ``_tile_loadconfig`` let the compiler drop 56 of the 64 bytes that ``ldtilecfg`` reads, until
its releases 11.5, 12.4, 13.3 and 14 (amxtileintrin.h; GCC's bug 114098). llama.cpp's kernels
(ggml/src/ggml-cpu/amx), compiled like that, end the process at the first quantized product of
several tokens. Compiled rightly they are the fastest there are: a step of one stream took 12 ms in
place of 27, a prompt 0.6 of the time (0.4 B parameters in Q4_0, two cores of a Xeon).
"""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from mofa_gguf.engine.native import llama

logger = logging.getLogger(__name__)

HEADER = Path(__file__).resolve().parents[2] / "data" / "amx_tile_config.h"
"""What makes any GCC compile them rightly, given with ``-include``."""
_MARK = b"mofa-gguf: whole tile configuration"
_KERNELS = b"AMX is not ready to be used"  # what ggml's amx.cpp would log
_COMPILER = re.compile(rb"GCC: \([^)\n\0]{0,100}\) (\d+)\.(\d+)|clang version (\d+)\.(\d+)")
_FIXED = {11: 5, 12: 4, 13: 3}
"""The first release of each of GCC's lines that is right; later lines all are, earlier none."""


def has_kernels() -> bool:
    """Whether llama.cpp was built with AMX kernels, which it then uses."""
    info: bytes = llama().llama_print_system_info()
    return b"AMX_INT8 = 1" in info


def weights_may_be_repacked() -> bool:
    """Whether llama.cpp may lay quantized weights out anew for the CPU: not for broken kernels."""
    return not has_kernels() or _loaded_are_sound()


def is_sound(library: bytes | mmap.mmap) -> bool:
    """Whether a library's content has no AMX kernels, or such as were compiled rightly."""
    if library.find(_KERNELS) < 0 or library.find(_MARK) >= 0:
        return True
    compilers = [_is_right(found) for found in _COMPILER.finditer(library)]
    return bool(compilers) and all(compilers)


def _is_right(compiler: re.Match[bytes]) -> bool:
    if compiler[3] is not None:  # clang builds the operand in itself
        return True
    line, release = int(compiler[1]), int(compiler[2])
    return line > max(_FIXED) or release >= _FIXED.get(line, release + 1)


@lru_cache(maxsize=1)
def _loaded_are_sound() -> bool:
    libraries = list(_loaded())
    sound = bool(libraries)
    for path in libraries:
        try:
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
            ):
                sound = sound and is_sound(content)
        except OSError as error:
            logger.info("%s cannot be looked into (%s)", path, error)
            sound = False
    return sound


def _loaded() -> Iterator[Path]:
    """The libraries of ggml and llama.cpp in this process; none where the system does not tell."""
    try:
        lines = Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return
    names = {line.split(maxsplit=5)[5] for line in lines if line.count("/") and "r-xp" in line}
    for path in map(Path, sorted(names)):
        if re.search(r"ggml|llama", path.name):
            yield path
