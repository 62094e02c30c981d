"""A checkpoint folder's content as one digest.

The digest covers every byte of the weights, the configuration and the tokenizer, so two copies of
a checkpoint share one cached conversion and an edited one gets its own. Reading all weights takes
about a second a gigabyte; the digest of a file is therefore remembered under its size, inode and
modification time, and the next start only looks those up.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from mofa_gguf.store.errors import NotAModel

logger = logging.getLogger(__name__)

# What a conversion can read. Everything else in a checkpoint folder (pictures, other formats of
# the weights) leaves the result as it is.
_ENDINGS = (".safetensors", ".json", ".model", ".jinja", ".txt", ".tiktoken")
_BLOCK = 1 << 20

OnBytes = Callable[[int, int], None]


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that a conversion can read, in a fixed order.

    Subfolders are looked into one level deep (sentence-transformers keeps its pooling there).
    """
    found = [*folder.iterdir(), *folder.glob("*/*.json"), *folder.glob("*/*.jinja")]
    return sorted(
        path
        for path in found
        if path.suffix.lower() in _ENDINGS and path.is_file() and not path.name.startswith(".")
    )


def fingerprint(folder: Path, *, memory: Path, on_bytes: OnBytes | None = None) -> str:
    """Hex digest of a checkpoint's content.

    ``memory`` is the folder where digests of files are remembered; it may be missing or read-only.
    ``on_bytes(n_done, n_total)`` is called while files are read. Raises NotAModel when a file
    cannot be read.
    """
    try:
        files = checkpoint_files(folder)
        stats = {path: path.stat() for path in files}
        known = _recall(memory, folder)
        total = sum(stat.st_size for stat in stats.values())
        digest = hashlib.sha256()
        fresh: dict[str, str] = {}
        n_done = 0
        for path, stat in stats.items():
            name = path.relative_to(folder).as_posix()
            identity = f"{name}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ino}"
            fresh[identity] = known.get(identity) or _file_digest(path, n_done, total, on_bytes)
            entry = f"{name}\0{stat.st_size}\0{fresh[identity]}\n"
            digest.update(entry.encode(errors="surrogatepass"))  # names need not be UTF-8
            n_done += stat.st_size
    except OSError as error:
        raise NotAModel(folder, f"cannot be read ({error.strerror or error})") from error
    if fresh != known:
        _remember(memory, folder, fresh)
    return digest.hexdigest()


def _file_digest(path: Path, n_before: int, total: int, on_bytes: OnBytes | None) -> str:
    digest = hashlib.sha256()
    n_read = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            n_read += len(block)
            if on_bytes is not None:
                on_bytes(n_before + n_read, total)
    return digest.hexdigest()


def _memory_file(memory: Path, folder: Path) -> Path:
    name = hashlib.sha256(str(folder.resolve()).encode(errors="surrogatepass")).hexdigest()[:32]
    return memory / f"{name}.json"


def _recall(memory: Path, folder: Path) -> dict[str, str]:
    try:
        remembered = json.loads(_memory_file(memory, folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(remembered, dict):
        return {}
    return {key: value for key, value in remembered.items() if isinstance(value, str)}


def _remember(memory: Path, folder: Path, digests: dict[str, str]) -> None:
    """Keep digests for next time. Only saves time, so failing to is no error."""
    try:
        memory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=memory, suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(digests, file)
            temporary.replace(_memory_file(memory, folder))
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        logger.debug("cannot remember the digests of %s: %s", folder, error)
