"""Which files have passed the checks and the probe, kept in a folder.

A file is known by its size, its time of change and a digest of its header; a verdict holds for one
version of llama.cpp and of the checks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mofa_gguf.engine.files.check import RULES
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.native import llama

logger = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What is known of a file."""

    problem: str | None = None
    """Why it must not be loaded; None for a sound file."""
    probed: bool = False
    """Whether another process has loaded it."""


class Verdicts:
    """The verdicts in ``folder``, which is made when the first is written; None keeps nothing.

    A folder that cannot be written or read costs only the time of checking again.
    """

    def __init__(self, folder: Path | str | None) -> None:
        self._folder = Path(folder) if folder else None

    @property
    def keeps(self) -> bool:
        """Whether there is a folder."""
        return self._folder is not None

    def find(self, identity: str) -> Verdict | None:
        """The verdict on a file, if there is one."""
        if self._folder is None:
            return None
        try:
            stored = json.loads((self._folder / f"{identity}.json").read_text("utf-8"))
            verdict = Verdict(stored["problem"], stored["probed"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        known = isinstance(verdict.problem, str | None) and isinstance(verdict.probed, bool)
        return verdict if known else None

    def keep(self, identity: str, verdict: Verdict) -> None:
        """Write a verdict, in place of another one."""
        if self._folder is None:
            return
        path = self._folder / f"{identity}.json"
        fresh = path.with_suffix(f".{os.getpid()}.new")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(verdict._asdict()), "utf-8")
            fresh.replace(path)
        except OSError as error:
            logger.info("the verdict on a model file could not be kept: %s", error)
            with contextlib.suppress(OSError):
                fresh.unlink()


def identity_of(parts: Sequence[GGUFHeader]) -> str:
    """The name of a file's verdict. Raises OSError if a part is gone."""
    llama()
    digest = hashlib.sha256(f"{RULES} {sys.modules['llama_cpp'].__version__}".encode())
    for part in parts:
        status = part.path.stat()
        digest.update(f" {part.n_bytes} {status.st_mtime_ns} ".encode())
        with part.path.open("rb") as file:
            digest.update(file.read(part.data_offset))
    return digest.hexdigest()
