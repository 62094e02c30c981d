"""What can go wrong when a model is looked up, downloaded or kept.

    StoreError
    ├── ModelMissing        nothing of this name is there (``model``, ``path``)
    ├── NotAModel           what is there is no model that can be used (``path``, ``problem``)
    ├── DownloadFailed      the hub did not give the model (``repo``, ``reason``)
    └── CacheUnavailable    the cache folder cannot be used (``path``, ``problem``)

The converter's own errors pass through the store unchanged.
"""

from __future__ import annotations

from pathlib import Path


class StoreError(Exception):
    """Base of everything the store raises on purpose."""


class ModelMissing(StoreError):
    """There is no file, folder or hub repository of this name."""

    def __init__(self, model: str, hint: str, *, path: Path | None = None) -> None:
        super().__init__(f"there is no model {model!r}: {hint}")
        self.model = model
        self.hint = hint
        self.path = path


class NotAModel(StoreError):
    """The path exists but holds no model."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem


class DownloadFailed(StoreError):
    """A model could not be fetched from the hub."""

    def __init__(self, repo: str, reason: str) -> None:
        super().__init__(f"cannot get {repo!r} from the hub: {reason}")
        self.repo = repo
        self.reason = reason


class CacheUnavailable(StoreError):
    """The cache folder cannot be read or written."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(
            f"the cache folder {path} cannot be used ({problem}); "
            "set MOFA_GGUF_CACHE_DIR to a folder that can be written"
        )
        self.path = Path(path)
        self.problem = problem
