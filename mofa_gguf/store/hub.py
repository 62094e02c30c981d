"""Models from the Hugging Face hub, in the cache folder that huggingface_hub keeps.

A model that is there already is used without asking the network; :func:`download` fetches it, file
by file, weights last. Nothing but GGUF, safetensors and small text files is ever fetched.

Cache layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache (``blobs``, ``refs``
and ``snapshots`` in a folder for each repository).
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mofa_gguf.store.errors import CacheUnavailable, DownloadFailed
from mofa_gguf.store.progress import DownloadProgress, OnProgress
from mofa_gguf.store.reference import HubReference
from mofa_gguf.store.selection import Selection, SelectionError, select_files

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubModel:
    """A model that is on disk: a .gguf file, or a checkpoint folder (then ``path`` is a folder)."""

    path: Path
    selection: Selection


def find_local(reference: HubReference, hub: Path) -> HubModel | None:
    """The model as far as it was downloaded earlier; None unless it is complete."""
    folder = _repository(hub, reference.repo)
    commit = _known_commit(folder, reference.revision)
    if commit is None:
        return None
    snapshot = folder / "snapshots" / commit
    # A link whose blob is missing is no file.
    names = [
        path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()
    ]
    try:
        selection = select_files(names, reference.choice)
    except SelectionError:
        return None
    if selection.kind == "checkpoint" and not _checkpoint_is_whole(snapshot, selection):
        return None
    return _placed(snapshot, selection)


def _placed(snapshot: Path, selection: Selection) -> HubModel:
    path = snapshot / selection.main if selection.kind == "gguf" else snapshot
    return HubModel(path, selection)


def _repository(hub: Path, repo: str) -> Path:
    return hub / ("models--" + repo.replace("/", "--"))


def _known_commit(folder: Path, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.fullmatch(commit) else None


def _checkpoint_is_whole(snapshot: Path, selection: Selection) -> bool:
    if not any(name in selection.files for name in _TOKENIZER_FILES):
        return False
    index = snapshot / "model.safetensors.index.json"
    if not index.is_file():
        return True
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        return False
    return shards <= set(selection.files)


def offline_by_environment() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids the network."""
    asked = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return asked.upper() in {"1", "ON", "YES", "TRUE"}


def download(
    reference: HubReference,
    hub: Path,
    *,
    endpoint: str | None = None,
    progress: OnProgress | None = None,
) -> HubModel:
    """Fetch a model as it is on the hub now; files that are there already are not fetched again.

    An interrupted download goes on where it stopped, also in another process.
    ``endpoint`` replaces the hub's address (default: HF_ENDPOINT or the public hub).
    Raises DownloadFailed with what to do, CacheUnavailable when the folder cannot be written.
    """
    with _translated(reference, hub):
        from huggingface_hub import HfApi

        info = HfApi(endpoint=endpoint, library_name="mofa-gguf").model_info(
            reference.repo, revision=reference.revision, files_metadata=True
        )
        selection = _select(reference, info)
        commit = info.sha or ""
        if not _COMMIT.fullmatch(commit):
            raise DownloadFailed(reference.repo, "the hub gave no commit for it")
        _fetch_files(reference, hub, info, selection, commit, endpoint, progress)
    folder = _repository(hub, reference.repo)
    _note_commit(folder, reference.revision, commit)
    return _placed(folder / "snapshots" / commit, selection)


def _select(reference: HubReference, info: ModelInfo) -> Selection:
    names = [sibling.rfilename for sibling in info.siblings or ()]
    try:
        return select_files(names, reference.choice)
    except SelectionError as error:
        raise DownloadFailed(reference.repo, f"the repository {error}") from error


def _fetch_files(
    reference: HubReference,
    hub: Path,
    info: ModelInfo,
    selection: Selection,
    commit: str,
    endpoint: str | None,
    progress: OnProgress | None,
) -> None:
    from mofa_gguf.store.fetch import fetch_file

    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
    snapshot = _repository(hub, reference.repo) / "snapshots" / commit
    _check_space(reference.repo, hub, snapshot, selection.files, sizes)
    total = sum(sizes[name] for name in selection.files)
    n_done = 0
    for index, name in enumerate(selection.files):
        report = _reporter(reference.repo, name, index, len(selection.files), n_done, total)
        on_bytes = _forward(progress, report)
        on_bytes(0)
        if not (snapshot / name).is_file():
            fetch_file(
                reference.repo,
                name,
                commit,
                hub=hub,
                blobs=_repository(hub, reference.repo) / "blobs",
                endpoint=endpoint,
                on_bytes=on_bytes,
            )
        n_done += sizes[name]
        on_bytes(sizes[name])


def _reporter(
    repo: str, name: str, index: int, n_files: int, n_before: int, total: int
) -> Callable[[int], DownloadProgress]:
    def report(n_of_file: int) -> DownloadProgress:
        return DownloadProgress(repo, name, index, n_files, n_before + n_of_file, total)

    return report


def _forward(
    progress: OnProgress | None, report: Callable[[int], DownloadProgress]
) -> Callable[[int], None]:
    def on_bytes(n_of_file: int) -> None:
        if progress is not None:
            progress(report(n_of_file))

    return on_bytes


def _check_space(
    repo: str, hub: Path, snapshot: Path, files: Sequence[str], sizes: dict[str, int]
) -> None:
    needed = sum(sizes[name] for name in files if not (snapshot / name).is_file())
    existing = next((folder for folder in (hub, *hub.parents) if folder.is_dir()), None)
    if existing is None:
        return
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DownloadFailed(
            repo,
            f"{needed / 1e9:.1f} GB are needed in {hub} and {free / 1e9:.1f} GB are free; make "
            "room, choose a smaller quantization, or set MOFA_GGUF_CACHE_DIR to another disk",
        )


def _note_commit(folder: Path, revision: str, commit: str) -> None:
    """Remember which commit a branch or tag stood for, as huggingface_hub does."""
    if revision == commit:
        return
    reference = folder / "refs" / revision
    try:
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit, encoding="ascii")
    except OSError as error:
        raise CacheUnavailable(folder, error.strerror or str(error)) from error


@contextmanager
def _translated(reference: HubReference, hub: Path) -> Iterator[None]:
    """Turn what huggingface_hub and the system raise into the store's errors."""
    from huggingface_hub import errors

    # huggingface_hub moved from httpx to httpx2 between 1.x and 2.x; its own error's base class
    # is the one that the client in use raises.
    no_connection: tuple[type[BaseException], ...] = (
        errors.LocalEntryNotFoundError,
        *(base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"),
    )
    repo = reference.repo
    try:
        yield
    except errors.GatedRepoError as error:
        reason = (
            "its owner gives access on request; ask for it on the repository's page and log in "
            "with 'hf auth login' or HF_TOKEN"
        )
        raise DownloadFailed(repo, reason) from error
    except errors.RepositoryNotFoundError as error:
        reason = (
            "there is no such repository, or it is private; check the name, or log in with "
            "'hf auth login' or HF_TOKEN"
        )
        raise DownloadFailed(repo, reason) from error
    except errors.RevisionNotFoundError as error:
        raise DownloadFailed(repo, f"it has no revision {reference.revision!r}") from error
    except errors.HFValidationError as error:
        raise DownloadFailed(repo, "this is no valid hub id; it has the form org/name") from error
    except errors.OfflineModeIsEnabled as error:
        raise offline_failure(repo, "HF_HUB_OFFLINE is set") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        reason = f"it answered with HTTP status {status}; try again later"
        raise DownloadFailed(repo, reason) from error
    except no_connection as error:
        raise offline_failure(repo, f"no connection ({_first_line(error)})") from error
    except OSError as error:
        raise CacheUnavailable(error.filename or hub, _first_line(error)) from error


def offline_failure(repo: str, why: str) -> DownloadFailed:
    """The error for a model that is not on disk while there is no network."""
    return DownloadFailed(
        repo,
        f"{why} and it was not downloaded before; connect and run 'mofa-gguf pull {repo}' (what "
        "was fetched already is kept), or name a .gguf file or checkpoint folder",
    )


def _first_line(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    text = str(strerror or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
