"""Where models come from and where they live: files, checkpoint folders, the hub, the cache."""

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
from mofa_gguf.store.preview import CheckpointPreview, preview
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
