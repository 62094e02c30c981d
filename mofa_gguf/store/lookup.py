"""From what a ``model`` setting says to a GGUF file on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mofa_gguf.store.converted import ConversionCache, Converter, convert_checkpoint
from mofa_gguf.store.errors import ModelMissing, NotAModel
from mofa_gguf.store.folders import cache_folder, hub_folder
from mofa_gguf.store.progress import OnProgress
from mofa_gguf.store.reference import (
    DemoReference,
    HubReference,
    PathReference,
    read_hub_reference,
    read_reference,
)
from mofa_gguf.store.selection import SPLIT_NAME

logger = logging.getLogger(__name__)

_MAGIC = b"GGUF"
# The formats that GGUF replaced in 2023; their magic numbers, as little-endian bytes.
_OLD_MAGICS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class ResolvedModel:
    """A GGUF file on disk and where it came from.

    ``source`` is the path, folder or hub id that was asked for; ``checkpoint`` is the folder the
    file was converted from, None when it was GGUF from the start.
    """

    path: Path
    kind: Literal["gguf", "checkpoint", "hub"]
    source: str
    checkpoint: Path | None = None


def resolve(
    model: str | Path,
    *,
    cache_dir: str | Path | None = None,
    quantization: str = "Q8_0",
    offline: bool = False,
    base_dir: str | Path | None = None,
    progress: OnProgress | None = None,
    converter: Converter = convert_checkpoint,
) -> ResolvedModel:
    """Find the GGUF file for ``model``, converting or downloading it if need be.

    ``model`` is a .gguf file, a folder with one, a checkpoint folder, ``demo``, or a hub id
    (``org/name``, ``org/name:Q4_K_M``, ``org/name:file.gguf``, also with ``hf://`` in front).
    An existing path always wins over a hub id. Checkpoints are converted to ``quantization`` into
    the cache, once for each content. A hub model that is on disk already is used without asking
    the network; ``offline`` (or HF_HUB_OFFLINE) forbids it altogether.

    Raises ModelMissing, NotAModel, DownloadFailed, CacheUnavailable, and ConversionError.
    """
    reference = read_reference(str(model), base_dir=Path(base_dir) if base_dir else None)
    cache = ConversionCache(cache_folder(cache_dir), converter)
    if isinstance(reference, DemoReference):
        folder = demo_checkpoint()
        path = cache.get(folder, quantization, progress=progress)
        return ResolvedModel(path, "checkpoint", str(model), folder)
    if isinstance(reference, PathReference):
        return _from_path(str(model), reference.path, cache, quantization, progress)
    found, wanted = _from_hub(reference, cache_dir, offline=offline, progress=progress)
    if found.is_dir():
        path = cache.get(found, wanted or quantization, progress=progress)
        return ResolvedModel(path, "hub", str(model), found)
    return ResolvedModel(found, "hub", str(model))


def locate(
    model: str | Path,
    *,
    cache_dir: str | Path | None = None,
    base_dir: str | Path | None = None,
    offline: bool = False,
    progress: OnProgress | None = None,
) -> Path:
    """The GGUF file or checkpoint folder that ``model`` names, as it is: nothing is converted.

    A hub model is downloaded if it is not on disk, unless ``offline``. Raises ModelMissing,
    NotAModel, DownloadFailed and CacheUnavailable.
    """
    reference = read_reference(str(model), base_dir=Path(base_dir) if base_dir else None)
    if isinstance(reference, DemoReference):
        return demo_checkpoint()
    if isinstance(reference, HubReference):
        return _from_hub(reference, cache_dir, offline=offline, progress=progress)[0]
    return _model_path(reference.path)


def pull(
    model: str,
    *,
    cache_dir: str | Path | None = None,
    progress: OnProgress | None = None,
    endpoint: str | None = None,
) -> Path:
    """Bring a hub model up to date on disk; returns its .gguf file or its checkpoint folder.

    Raises DownloadFailed and CacheUnavailable.
    """
    from mofa_gguf.store.hub import download, offline_by_environment, offline_failure

    reference = read_hub_reference(model)
    if offline_by_environment():
        raise offline_failure(reference.repo, "HF_HUB_OFFLINE is set")
    return download(reference, hub_folder(cache_dir), progress=progress, endpoint=endpoint).path


def demo_checkpoint() -> Path:
    """Folder of the checkpoint that comes with the package; raises ModelMissing."""
    folder = Path(__file__).resolve().parent.parent / "data" / "demo"
    if not (folder / "config.json").is_file():
        raise ModelMissing(
            "demo", "this installation came without the demo checkpoint; reinstall mofa-gguf"
        )
    return folder


def _from_hub(
    reference: HubReference,
    cache_dir: str | Path | None,
    *,
    offline: bool,
    progress: OnProgress | None,
) -> tuple[Path, str | None]:
    """A file or checkpoint folder on disk, and the quantization that the reference named."""
    from mofa_gguf.store.hub import download, find_local, offline_by_environment, offline_failure

    hub = hub_folder(cache_dir)
    found = find_local(reference, hub)
    if found is None:
        if offline or offline_by_environment():
            raise offline_failure(reference.repo, "the network may not be used (offline is set)")
        found = download(reference, hub, progress=progress)
    return found.path, found.selection.quantization


def _from_path(
    model: str,
    path: Path,
    cache: ConversionCache,
    quantization: str,
    progress: OnProgress | None,
) -> ResolvedModel:
    found = _model_path(path)
    if not found.is_dir():
        return ResolvedModel(found, "gguf", model)
    converted = cache.get(found, quantization, progress=progress)
    return ResolvedModel(converted, "checkpoint", model, found)


def _model_path(path: Path) -> Path:
    """The GGUF file that a path stands for, or the path itself if it is a folder without one.

    Such a folder need not be a checkpoint: the converter says what is missing in it.
    """
    if not path.is_dir():
        return _gguf_file(path)
    inside = None if (path / "config.json").is_file() else _only_gguf(path)
    return path if inside is None else _gguf_file(inside)


def _only_gguf(folder: Path) -> Path | None:
    """The one model among a folder's GGUF files, a split one counting once."""
    first_files = []
    for path in sorted(folder.glob("*.gguf")):
        split = SPLIT_NAME.fullmatch(path.name)
        if split is None or int(split["part"]) == 1:
            first_files.append(path)
    if len(first_files) > 1:
        names = ", ".join(path.name for path in first_files)
        raise NotAModel(folder, f"holds several models, name one of its files: {names}")
    return first_files[0] if first_files else None


def _gguf_file(path: Path) -> Path:
    """``path`` if it is a GGUF file, the first part if it is one of several. Raises NotAModel."""
    if path.suffix.lower() == ".safetensors":
        raise NotAModel(path, "give the checkpoint's folder instead of one of its weight files")
    if path.suffix.lower() in _PICKLES:
        raise NotAModel(
            path,
            "pickled weights are not read, because that can run any code; save the model as "
            "safetensors, or get a GGUF version",
        )
    first = _first_part(path)
    if first.exists() and not first.is_file():  # a pipe would be waited for without end
        raise NotAModel(first, "is no ordinary file")
    try:
        with first.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise NotAModel(first, f"cannot be read ({error.strerror or error})") from error
    if start in _OLD_MAGICS:
        raise NotAModel(
            first,
            f"is in llama.cpp's format of before GGUF ({_OLD_MAGICS[start]}), which it reads no "
            "more; get the model as GGUF or convert its checkpoint",
        )
    if start != _MAGIC:
        raise NotAModel(first, "is no GGUF file (it does not begin with 'GGUF'); get it again")
    return first


def _first_part(path: Path) -> Path:
    """The file that llama.cpp opens for a split model; raises NotAModel if parts are missing."""
    split = SPLIT_NAME.fullmatch(path.name)
    if split is None:
        return path
    count = int(split["count"])
    parts = [
        path.with_name(f"{split['stem']}-{part:05d}-of-{count:05d}.gguf")
        for part in range(1, min(count, 10_000) + 1)
    ]
    missing = [part.name for part in parts if not part.is_file()]
    if missing or not parts:
        listed = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        raise NotAModel(path, f"is one of {count} parts, and these are missing: {listed}")
    return parts[0]
