"""One file of the hub into huggingface_hub's cache, resumable across processes.

huggingface_hub 2.x removes the partial file when a download fails, so a broken 20 GB download
would start again from nothing. Here the bytes go to a partial file that stays, are checked against
the hub's digest when whole, and are renamed to the blob that huggingface_hub expects; it then only
makes the link in the snapshot.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from mofa_gguf.store.errors import DownloadFailed

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
_MAX_ATTEMPTS = 5
FIRST_PAUSE_S = 1.0
# The hub serves larger files through its Xet protocol only, which huggingface_hub speaks.
_MAX_PLAIN_BYTES = 50_000_000_000
# A git blob's SHA-1 for small files, the content's SHA-256 for large ones.
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

OnBytes = Callable[[int], None]


def fetch_file(
    repo: str,
    name: str,
    commit: str,
    *,
    hub: Path,
    blobs: Path,
    endpoint: str | None = None,
    on_bytes: OnBytes,
) -> Path:
    """Fetch file ``name`` of ``repo`` at ``commit``; returns its path in the snapshot.

    ``on_bytes`` is called with the number of bytes that are there. A lost connection is tried
    again with growing pauses; the fifth loss in a row without a byte in between is an error.
    Raises DownloadFailed when the bytes are not the hub's, and what huggingface_hub raises.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(repo, name, revision=commit, endpoint=endpoint)
    metadata = get_hf_file_metadata(url)
    digest, size = metadata.etag or "", metadata.size
    if _DIGEST.fullmatch(digest) and size is not None and size <= _MAX_PLAIN_BYTES:
        blobs.mkdir(parents=True, exist_ok=True)
        with FileLock(blobs / f"{digest}.mofa-gguf.lock"):
            if not (blobs / digest).exists():
                partial = blobs / f"{digest}.mofa-gguf.incomplete"
                _Transfer(repo, url, partial, size, on_bytes).run()
                _check(repo, name, partial, size, digest)
                partial.replace(blobs / digest)
    path: Any = hf_hub_download(
        repo, name, revision=commit, cache_dir=hub, endpoint=endpoint, library_name="mofa-gguf"
    )
    return Path(path)


class _Transfer:
    """Bytes from ``url`` to ``partial``, going on from what is there."""

    def __init__(self, repo: str, url: str, partial: Path, size: int, on_bytes: OnBytes) -> None:
        self._repo = repo
        self._url = url
        self._partial = partial
        self._size = size
        self._on_bytes = on_bytes

    def run(self) -> None:
        from huggingface_hub.errors import HfHubHTTPError

        lost: tuple[type[BaseException], ...] = tuple(
            base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
        )
        n_fruitless = 0
        with self._partial.open("ab") as file:
            n_there = file.tell()
            while n_there < self._size:
                try:
                    self._receive(file, n_there)
                except HfHubHTTPError:  # an answer, not a lost connection
                    raise
                except lost as error:
                    file.flush()
                    n_fruitless = 0 if file.tell() > n_there else n_fruitless + 1
                    if n_fruitless >= _MAX_ATTEMPTS:
                        raise
                    logger.info("connection lost (%s), going on at %d", error, file.tell())
                    time.sleep(FIRST_PAUSE_S * 2**n_fruitless)
                n_there = file.tell()

    def _receive(self, file: BinaryIO, offset: int) -> None:
        from huggingface_hub import get_session
        from huggingface_hub.utils import (  # type: ignore[attr-defined, unused-ignore]
            build_hf_headers,
            hf_raise_for_status,
        )

        headers = build_hf_headers(library_name="mofa-gguf")
        headers["Accept-Encoding"] = "identity"  # ranges and digests are of the plain bytes
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with get_session().stream(
            "GET", self._url, headers=headers, follow_redirects=True
        ) as response:
            hf_raise_for_status(response)
            if offset and response.status_code != 206:  # the server sends all of it again
                file.seek(0)
                file.truncate()
                offset = 0
            # No block size: what arrived before a connection is lost must count.
            for block in response.iter_bytes():
                file.write(block)
                offset += len(block)
                if offset > self._size:
                    raise DownloadFailed(self._repo, f"{self._url} is longer than announced")
                self._on_bytes(offset)


def _check(repo: str, name: str, partial: Path, size: int, digest: str) -> None:
    """Compare the bytes with the hub's digest; a partial file that is wrong is removed."""
    if len(digest) == 64:
        sha = hashlib.sha256()
    else:
        sha = hashlib.sha1(usedforsecurity=False)
        sha.update(b"blob %d\0" % size)  # git's object header
    with partial.open("rb") as file:
        while block := file.read(_BLOCK):
            sha.update(block)
    if sha.hexdigest() != digest:
        partial.unlink()
        raise DownloadFailed(
            repo, f"{name} arrived damaged (its digest is not the hub's); try again"
        )
