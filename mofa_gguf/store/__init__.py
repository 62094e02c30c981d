"""Where models come from and where they live: files, checkpoint folders, the hub, the cache."""

from __future__ import annotations

# Most callers want one name, and all modules together take a hundredth of a second to import.
TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from typing import Any

    from mofa_gguf.store.errors import (
        CacheUnavailable,
        DownloadFailed,
        ModelMissing,
        NotAModel,
        StoreError,
    )
    from mofa_gguf.store.folders import (
        CachedModel,
        CacheUsage,
        cache_folder,
        clear,
        hub_folder,
        remove,
        usage,
        verdict_folder,
    )
    from mofa_gguf.store.lookup import ResolvedModel, demo_checkpoint, locate, pull, resolve
    from mofa_gguf.store.previews import CheckpointPreview, preview
    from mofa_gguf.store.progress import DownloadProgress, OnProgress, ReadingProgress

__all__ = [
    "CacheUnavailable",
    "CacheUsage",
    "CachedModel",
    "CheckpointPreview",
    "DownloadFailed",
    "DownloadProgress",
    "ModelMissing",
    "NotAModel",
    "OnProgress",
    "ReadingProgress",
    "ResolvedModel",
    "StoreError",
    "cache_folder",
    "clear",
    "demo_checkpoint",
    "hub_folder",
    "locate",
    "preview",
    "pull",
    "remove",
    "resolve",
    "usage",
    "verdict_folder",
]

_HOMES = {
    "CacheUnavailable": "errors",
    "CacheUsage": "folders",
    "CachedModel": "folders",
    "CheckpointPreview": "previews",
    "DownloadFailed": "errors",
    "DownloadProgress": "progress",
    "ModelMissing": "errors",
    "NotAModel": "errors",
    "OnProgress": "progress",
    "ReadingProgress": "progress",
    "ResolvedModel": "lookup",
    "StoreError": "errors",
    "cache_folder": "folders",
    "clear": "folders",
    "demo_checkpoint": "lookup",
    "hub_folder": "folders",
    "locate": "lookup",
    "preview": "previews",
    "pull": "lookup",
    "remove": "folders",
    "resolve": "lookup",
    "usage": "folders",
    "verdict_folder": "folders",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
