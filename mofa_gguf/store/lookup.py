"""From what a ``model`` setting says to a GGUF file on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mofa_gguf.store.errors import ModelMissing
from mofa_gguf.store.on_disk import model_path
from mofa_gguf.store.reference import (
    DemoReference,
    HubReference,
    PathReference,
    read_hub_reference,
    read_reference,
)

if TYPE_CHECKING:
    from mofa_gguf.store.converted import ConversionCache, Converter
    from mofa_gguf.store.progress import OnProgress


class ResolvedModel(NamedTuple):
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
    converter: Converter | None = None,
) -> ResolvedModel:
    """Find the GGUF file for ``model``, converting or downloading it if need be.

    ``model`` is a .gguf file, a folder with one, a checkpoint folder, ``demo``, or a hub id
    (``org/name``, ``org/name:Q4_K_M``, ``org/name:file.gguf``, also with ``hf://`` in front).
    An existing path always wins over a hub id. Checkpoints are converted to ``quantization`` into
    the cache, once for each content. A hub model that is on disk already is used without asking
    the network; ``offline`` (or HF_HUB_OFFLINE) forbids it altogether. ``converter`` converts, in
    place of :func:`mofa_gguf.convert.convert`.

    Raises ModelMissing, NotAModel, DownloadFailed, CacheUnavailable, and ConversionError.
    """
    from mofa_gguf.store.converted import ConversionCache, convert_checkpoint
    from mofa_gguf.store.folders import cache_folder

    reference = read_reference(str(model), base_dir=Path(base_dir) if base_dir else None)
    cache = ConversionCache(cache_folder(cache_dir), converter or convert_checkpoint)
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
    return model_path(reference.path)


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
    from mofa_gguf.store.folders import hub_folder
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
    from mofa_gguf.store.folders import hub_folder
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
    found = model_path(path)
    if not found.is_dir():
        return ResolvedModel(found, "gguf", model)
    converted = cache.get(found, quantization, progress=progress)
    return ResolvedModel(converted, "checkpoint", model, found)
