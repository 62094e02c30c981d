"""Checkpoints converted on first use and kept: one file for each content and set of options.

The key covers the checkpoint's content, the quantization and the converter itself (its source and
the versions of what it quantizes with), so a file in the cache is what a conversion now would give.
A file lock for each key lets one process convert while others that want the same wait for it.
Every conversion happens in a folder of its own and the finished file is renamed into place;
a folder whose lock nobody holds was left by a process that died, and is removed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from mofa_gguf.store.errors import CacheUnavailable
from mofa_gguf.store.fingerprint import fingerprint
from mofa_gguf.store.folders import make_folder
from mofa_gguf.store.progress import OnProgress, reading_progress

logger = logging.getLogger(__name__)

_PARTIAL = "partial-"


class Converter(Protocol):
    """What turns a checkpoint folder into a GGUF file: :func:`mofa_gguf.convert`, or a test's."""

    def __call__(
        self,
        source: Path,
        output: Path,
        quantization: str,
        *,
        progress: OnProgress | None,
    ) -> object:
        """Write ``output``; raises ConversionError and leaves no file when it cannot."""


def convert_checkpoint(
    source: Path, output: Path, quantization: str, *, progress: OnProgress | None
) -> object:
    """The package's own converter, imported when it is needed."""
    from mofa_gguf.convert import convert

    return convert(source, output, quantization, progress=progress)


@dataclass(frozen=True)
class ConversionCache:
    """Converted checkpoints in ``folder`` (the cache folder, created when first written)."""

    folder: Path
    converter: Converter = convert_checkpoint

    def get(
        self, checkpoint: Path, quantization: str, *, progress: OnProgress | None = None
    ) -> Path:
        """The GGUF file for a checkpoint folder, converted now if it is not there yet.

        Waits when another process is converting the same. Raises the converter's errors,
        NotAModel for a folder that cannot be read, and CacheUnavailable.
        """
        quantization = quantization.upper()
        content = fingerprint(
            checkpoint,
            memory=self.folder / "fingerprints",
            on_bytes=reading_progress(progress) if progress is not None else None,
        )
        key = _key(content, quantization)
        target = self.folder / "converted" / f"{_plain(checkpoint.name)}-{quantization}-{key}.gguf"
        if target.is_file():
            return target
        make_folder(target.parent)
        with self._locked(key, target):
            if not target.is_file():  # another process may have finished while we waited
                self._convert(checkpoint, target, quantization, key, progress)
        return target

    @contextmanager
    def _locked(self, key: str, target: Path) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(target.parent / f"{key}.lock")
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.info("another process is making %s; waiting for it", target.name)
                lock.acquire()
        except OSError as error:
            raise CacheUnavailable(target.parent, error.strerror or str(error)) from error
        try:
            yield
        finally:
            lock.release()

    def _convert(
        self,
        checkpoint: Path,
        target: Path,
        quantization: str,
        key: str,
        progress: OnProgress | None,
    ) -> None:
        remove_stale(target.parent, own_key=key)
        try:
            workspace = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{key}-", dir=target.parent))
        except OSError as error:
            raise CacheUnavailable(target.parent, error.strerror or str(error)) from error
        try:
            made = workspace / target.name
            self.converter(checkpoint, made, quantization, progress=progress)
            note = {"source": str(checkpoint.resolve()), "quantization": quantization}
            try:
                target.with_suffix(".json").write_text(json.dumps(note), encoding="utf-8")
                made.replace(target)
            except OSError as error:
                raise CacheUnavailable(target.parent, error.strerror or str(error)) from error
        finally:
            shutil.rmtree(workspace, ignore_errors=True)


def remove_stale(folder: Path, *, own_key: str | None = None) -> list[Path]:
    """Remove what dead processes left in ``folder``; returns what was removed.

    ``own_key`` is the key whose lock the caller holds.
    """
    from filelock import FileLock, Timeout

    removed = []
    for partial in folder.glob(f"{_PARTIAL}*"):
        key = partial.name.removeprefix(_PARTIAL).split("-", 1)[0]
        if key == own_key:
            shutil.rmtree(partial, ignore_errors=True)
            removed.append(partial)
            continue
        try:
            with FileLock(folder / f"{key}.lock", timeout=0):
                shutil.rmtree(partial, ignore_errors=True)
                removed.append(partial)
        except (Timeout, OSError):  # somebody is at work there
            continue
    return removed


def _key(content: str, quantization: str) -> str:
    text = "\0".join((content, quantization, converter_version()))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@lru_cache(maxsize=1)
def converter_version() -> str:
    """Digest of everything in the package that decides what a conversion gives.

    The source is its own version number: nobody has to remember to raise one.
    """
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    sources = [*(package / "convert").rglob("*.py"), *(package / "engine").glob("quantize*.py")]
    for path in sorted(sources):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    # Plugins may bring model families (mofa_gguf.convert.plugins).
    points = importlib.metadata.entry_points(group="mofa")
    plugins = {point.dist.name for point in points if point.dist is not None}
    for distribution in ("llama-cpp-python", "gguf", *sorted(plugins - {"mofa-gguf"})):
        digest.update(f"{distribution}={_version(distribution)}\n".encode())
    return digest.hexdigest()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _plain(name: str) -> str:
    """A folder's name reduced to what every file system takes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "model"
