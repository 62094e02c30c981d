"""Whether llama.cpp may see a file: the checks, the probe, and what is remembered of both."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from pathlib import Path

from mofa_gguf.engine.errors import ModelFileError, UnsupportedModel
from mofa_gguf.engine.files import known
from mofa_gguf.engine.files.check import check_contents
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.files.kinds import check_kind
from mofa_gguf.engine.files.parts import read_parts
from mofa_gguf.engine.files.probe import probe
from mofa_gguf.engine.files.verdicts import Verdict, Verdicts, identity_of
from mofa_gguf.engine.files.vocabulary import MODEL_KEY
from mofa_gguf.engine.options import EngineOptions

logger = logging.getLogger(__name__)

_MOST_REMEMBERED = 64
_LONG_HEADER = 2**20
"""Bytes from which on checking again costs more than finding a verdict."""
_lock = threading.Lock()
_passed: OrderedDict[tuple[object, ...], bool] = OrderedDict()


def vet(header: GGUFHeader, options: EngineOptions) -> None:
    """Raises ModelFileError or UnsupportedModel for a model that llama.cpp must not see.

    All parts of a divided model are looked at. A file that has passed is not checked again while
    its size and time of change stay the same: by this process, and, with ``options.verdicts``, by
    those that come later.
    """
    check_kind(header)
    parts = read_parts(header)
    probing = _must_be_probed(header, options)
    here = tuple(_on_disk(part.path) for part in parts)
    with _lock:
        if here in _passed and (_passed[here] or not probing):
            return
    worth_it = probing or sum(part.data_offset for part in parts) >= _LONG_HEADER
    kept = Verdicts(options.verdicts if worth_it else None)
    identity = identity_of(parts) if kept.keeps else ""
    verdict = kept.find(identity)
    if verdict and verdict.problem:
        raise _refusal(header, verdict.problem)
    if verdict is None or (probing and not verdict.probed):
        check_contents(parts)
        verdict = Verdict(probe(header.path) if probing else None, probing)
        kept.keep(identity, verdict)
        if verdict.problem:
            raise _refusal(header, verdict.problem)
    with _lock:
        _passed[here] = verdict.probed
        while len(_passed) > _MOST_REMEMBERED:
            _passed.popitem(last=False)


def _refusal(header: GGUFHeader, problem: str) -> ModelFileError:
    return UnsupportedModel(header.path, problem, architecture=header.architecture)


def _must_be_probed(header: GGUFHeader, options: EngineOptions) -> bool:
    if options.probe == "auto":
        tokenizer = str(header.metadata.get(MODEL_KEY))
        return header.architecture not in known.ARCHITECTURES or tokenizer not in known.TOKENIZERS
    return options.probe == "always"


def _on_disk(path: Path) -> tuple[object, ...]:
    status = path.stat()
    return (str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino)
