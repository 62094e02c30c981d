"""The cache folder: where it is, what it holds, how it is emptied.

<cache>/converted/      GGUF files made from checkpoint folders, a .json beside each
<cache>/fingerprints/   content digests of checkpoints already read
<cache>/verdicts/       which model files have passed the checks before loading
<cache>/hub/            downloads, when the cache folder was chosen (see ``hub_folder``)
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from mofa_gguf.store.errors import CacheUnavailable

CACHE_VARIABLE = "MOFA_GGUF_CACHE_DIR"


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """``cache_dir``, or MOFA_GGUF_CACHE_DIR, or the system's place for caches. Not created."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen))
    import platformdirs

    return platformdirs.user_cache_path("mofa-gguf", appauthor=False)


def hub_folder(cache_dir: str | Path | None = None) -> Path:
    """Where downloads go.

    ``hub`` inside a cache folder that was chosen (argument or MOFA_GGUF_CACHE_DIR); otherwise the
    cache that all programs built on huggingface_hub share, so that nothing is downloaded twice.
    """
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(os.path.expanduser(chosen)) / "hub"
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def verdict_folder(cache_dir: str | Path | None = None) -> Path:
    """Where it is kept which model files have passed the checks before loading. Not created."""
    return cache_folder(cache_dir) / "verdicts"


def make_folder(folder: Path) -> Path:
    """Create ``folder`` with its parents; raises CacheUnavailable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheUnavailable(folder, error.strerror or str(error)) from error
    return folder


@dataclass(frozen=True)
class CachedModel:
    """One converted file in the cache. ``made_at_s`` is seconds since 1970."""

    path: Path
    source: str
    quantization: str
    n_bytes: int
    made_at_s: float = 0.0

    @property
    def name(self) -> str:
        """What the cache calls it."""
        return self.path.stem

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {"name": self.name, **asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class CacheUsage:
    """What the cache folder holds; ``n_bytes`` counts everything in it."""

    folder: Path
    models: tuple[CachedModel, ...]
    n_bytes: int

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "folder": str(self.folder),
            "n_bytes": self.n_bytes,
            "models": [model.to_dict() for model in self.models],
        }


def usage(cache_dir: str | Path | None = None) -> CacheUsage:
    """List what the cache folder holds. A folder that does not exist holds nothing."""
    folder = cache_folder(cache_dir)
    models = []
    for path in sorted((folder / "converted").glob("*.gguf")):
        note = read_note(path)
        models.append(
            CachedModel(
                path=path,
                source=str(note.get("source", "")),
                quantization=str(note.get("quantization", "")),
                n_bytes=_size(path),
                made_at_s=_modified(path),
            )
        )
    return CacheUsage(
        folder=folder,
        models=tuple(models),
        n_bytes=sum(_size(path) for path in folder.rglob("*") if path.is_file()),
    )


def clear(cache_dir: str | Path | None = None) -> int:
    """Remove converted models, fingerprints and verdicts; returns the bytes freed.

    Downloads stay: other programs may share them. Must not run while a conversion does.
    """
    folder = cache_folder(cache_dir)
    freed = 0
    for name in ("converted", "fingerprints", "verdicts"):
        part = folder / name
        freed += sum(_size(path) for path in part.rglob("*") if path.is_file())
        try:
            shutil.rmtree(part)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CacheUnavailable(part, error.strerror or str(error)) from error
    return freed


def remove(model: CachedModel) -> None:
    """Remove one converted model. A process that has it loaded keeps what it has.

    Raises CacheUnavailable.
    """
    try:
        model.path.unlink(missing_ok=True)
        model.path.with_suffix(".json").unlink(missing_ok=True)
    except OSError as error:
        raise CacheUnavailable(model.path, error.strerror or str(error)) from error


def read_note(path: Path) -> dict[str, object]:
    """What was noted beside a converted file; empty if nothing can be read."""
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # gone since it was listed
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # gone since it was listed
        return 0
