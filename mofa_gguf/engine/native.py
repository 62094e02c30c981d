"""llama.cpp's shared library: loaded once, its log sent to ``logging``.

Everything that calls llama.cpp gets it from :func:`llama` (the low-level C API of
llama-cpp-python, ``llama_cpp.llama_cpp``) or :func:`ggml` (the ggml library beside it), so that
the backend is initialised and the log callback installed before the first call.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mofa_gguf.engine.errors import LibraryUnavailable

logger = logging.getLogger("mofa_gguf.llama_cpp")

_NO_ROOM = "failed to map segment"  # ld.so's words, where mmap finds no address space
_FOLDER_VARIABLE = "LLAMA_CPP_LIB_PATH"  # llama-cpp-python's own

_T = TypeVar("_T")
_lock = threading.Lock()
_module: ModuleType | None = None
_ggml: ctypes.CDLL | None = None
_callbacks: list[object] = []

# ggml.h, enum ggml_log_level. llama.cpp's INFO is a page per load: DEBUG for us.
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUE = 5


class _LogSink:
    """Joins llama.cpp's log fragments into lines and keeps the last problems for error texts."""

    def __init__(self) -> None:
        self._local = threading.local()

    def write(self, level: int, text: bytes) -> None:
        state = self._local
        if level != _CONTINUE:
            state.level = _LEVELS.get(level, logging.DEBUG)
        pending = getattr(state, "pending", b"") + text
        *lines, state.pending = pending.split(b"\n")
        for raw in lines:
            line = raw.decode("utf-8", errors="replace").rstrip()
            if not line:
                continue
            state_level = getattr(state, "level", logging.DEBUG)
            for kept in getattr(state, "kept", ()):
                kept.append(line)
            # A load that fails tells its reason only here, and only once.
            if state_level >= logging.ERROR:
                state.errors = [*getattr(state, "errors", []), line][-4:]
            # Problems become exceptions with these lines in them; as log lines they are details.
            logger.log(min(state_level, logging.INFO), "%s", line)

    @contextmanager
    def keep(self) -> Iterator[list[str]]:
        before: tuple[list[str], ...] = getattr(self._local, "kept", ())
        lines: list[str] = []
        self._local.kept = (*before, lines)
        try:
            yield lines
        finally:
            self._local.kept = before

    def take_errors(self) -> list[str]:
        errors: list[str] = getattr(self._local, "errors", [])
        self._local.errors = []
        return errors


_sink = _LogSink()


def llama() -> ModuleType:
    """llama-cpp-python's low-level C API, initialised. Safe to call from any thread.

    Raises LibraryUnavailable, also when it is called again.
    """
    global _module
    module = _module
    if module is None:
        with _lock:
            module = _module = _module or _load()
    return module


def _load() -> ModuleType:
    _defer("llama_cpp")
    try:
        library: ModuleType = importlib.import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # Missing, in a folder of another layout, or of a version without some function.
        raise _unavailable(str(error)) from error

    # ctypes callbacks must outlive their use by C: this one lives as long as the process.
    _callbacks.append(library.llama_log_callback(_on_log))
    _listen(library)
    library.llama_backend_init()
    return library


def _unavailable(problem: str) -> LibraryUnavailable:
    folder = os.environ.get(_FOLDER_VARIABLE)
    if _NO_ROOM in problem:
        remedy = "it needs more address space than is left: raise the limit (ulimit -v)"
    elif folder:
        remedy = f"{_FOLDER_VARIABLE} is {folder}: correct it, or unset it"
    else:
        remedy = "reinstall it: pip install --force-reinstall --no-cache-dir llama-cpp-python"
    return LibraryUnavailable(" ".join(problem.split()), remedy)


def _listen(library: ModuleType) -> None:
    library.llama_log_set(_callbacks[0], ctypes.c_void_p(0))


class _Deferred(ModuleType):
    """A package whose ``__init__`` runs when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        with _deferred:
            if type(self) is _Deferred and not self.__dict__.get("_runs"):
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                self.__dict__["_runs"] = True
                try:
                    self.__spec__.loader.exec_module(self)
                    self.__class__ = ModuleType  # type: ignore[assignment]
                    if _module is not None:  # the package has taken llama.cpp's log for itself
                        _listen(_module)
                finally:
                    del self.__dict__["_runs"]
                return getattr(self, name)
        found = self.__dict__.get(name, self)
        if found is self:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return found


_deferred = threading.RLock()


def _defer(package: str) -> None:
    """Let submodules of a package be imported without all that its ``__init__`` imports.

    llama-cpp-python's brings its high-level API along, which takes three times as long to import
    as the C API. Others who import the package get all of it, as ever.
    """
    if package in sys.modules or (spec := importlib.util.find_spec(package)) is None:
        return
    module = _Deferred(package)
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    module.__package__, module.__path__ = package, list(spec.submodule_search_locations or ())
    sys.modules[package] = module


def _on_log(level: int, text: bytes, _user_data: object) -> None:
    _sink.write(level, text)


def ggml() -> ctypes.CDLL:
    """The ggml library that llama.cpp was built with.

    llama-cpp-python has no bindings for most of ggml; callers declare the argument types of what
    they use.
    """
    global _ggml
    library = llama()
    with _lock:
        if _ggml is None:
            folder = os.environ.get(_FOLDER_VARIABLE)
            base = Path(folder) if folder else Path(str(library.__file__)).parent / "lib"
            # libggml depends on libggml-base, so symbols of both are found through it.
            _ggml = _open_first(base, ("libggml", "ggml"))
        return _ggml


def _open_first(folder: Path, stems: tuple[str, ...]) -> ctypes.CDLL:
    for stem in stems:
        for suffix in (".so", ".dylib", ".dll"):
            path = folder / f"{stem}{suffix}"
            if path.exists():
                return ctypes.CDLL(str(path))
    raise _unavailable(f"no ggml library in {folder}")


def take_errors() -> list[str]:
    """The last error lines that llama.cpp logged on this thread; forgets them."""
    return _sink.take_errors()


def logged() -> AbstractContextManager[list[str]]:
    """A block that keeps every line llama.cpp logs on this thread meanwhile."""
    return _sink.keep()


def apart(
    function: Callable[[], _T],
    *,
    stop: Callable[[BaseException], None] = lambda _: None,
    discard: Callable[[_T], None] = lambda _: None,
) -> _T:
    """What ``function`` gives or raises, computed on a thread that ends with it.

    llama.cpp computes with OpenMP, which keeps a team of threads for every thread that ever asked
    for one. Where all of them are more than the cores, libgomp lets them sleep between one piece of
    work and the next: steps of the engine took 31 ms in place of 10. The team of a thread that has
    ended is gone. Whoever waits and is interrupted has ``stop`` called with that, and waits on,
    however often; ``discard`` gets what came all the same.
    """
    future: Future[_T] = Future()
    # Taken by the thread when it begins, or by who is interrupted before: a thread that begins
    # later would use what has been closed meanwhile.
    begun = threading.Lock()

    def run() -> None:
        if not begun.acquire(blocking=False):
            return
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            future.set_exception(error)

    thread = threading.Thread(target=run, name="mofa-gguf-apart", daemon=True)
    try:
        thread.start()
        thread.join()
    except BaseException as error:  # an interrupt, or what a signal's handler raises
        if not begun.acquire(blocking=False):
            stop(error)
            _outlast(future)
            if future.exception() is None:
                discard(future.result())
        raise
    return future.result()


def _outlast(future: Future[_T]) -> None:
    """Wait until it is done, whatever else is heard meanwhile: memory that is in use stays."""
    while not future.done():
        with suppress(BaseException):
            wait([future])
