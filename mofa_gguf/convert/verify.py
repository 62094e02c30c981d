"""Is the written file what it should be? Read back, tokenized with, computed with.

Every check raises VerificationError when it fails; the ones that passed are in the report.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np

from mofa_gguf.convert.errors import VerificationError
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.gguf_source import read_headers
from mofa_gguf.convert.plan import Plan
from mofa_gguf.convert.report import Check
from mofa_gguf.convert.stages import available_cpus
from mofa_gguf.convert.tokenizer import Kept, Vocabulary, agreement_of
from mofa_gguf.engine.errors import EngineError, OutOfMemory
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.models.logits import Probe
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile

logger = logging.getLogger(__name__)

TEXT = "The quick brown fox jumps over the lazy dog."
MAX_TOKENS = 16
_BYTES_A_THREAD = 10**9


def verify(
    path: Path,
    plan: Plan,
    model: Model,
    vocabulary: Vocabulary,
    *,
    target: Path,
    warn: Callable[[str], None],
    n_threads: int | None = None,
) -> Iterator[Check]:
    """Check the file written to ``path``, cheapest check first.

    ``target`` is the name that it will get, and that errors name; ``warn`` is told what belongs
    into the report and does not speak against the file. A check for which the memory is too small
    is left out, unless it is all that judges the vocabulary (:attr:`Vocabulary.judge_on`). Raises
    VerificationError, and TokenizerMismatch where the vocabulary is judged here.
    """
    with LoadedFile(path, n_threads=n_threads) as file:
        checks: tuple[tuple[str, Callable[[], str]], ...] = (
            ("header", lambda: _check_header(file.headers, plan, model)),
            ("vocabulary", lambda: _check_vocabulary(file.vocab, vocabulary, warn)),
            ("forward pass", lambda: _check_forward_pass(file.probe, vocabulary)),
        )
        for name, check in checks:
            try:
                yield Check(name, True, check())
            except OutOfMemory as error:
                if name == "vocabulary" and vocabulary.judge_on is not None:
                    raise VerificationError(target, name, str(error)) from error
                # The file may be meant for a larger machine.
                logger.warning("%s: the check %r was left out: %s", target.name, name, error)
            except (EngineError, CheckFailed) as error:
                raise VerificationError(target, name, str(error)) from error


class LoadedFile:
    """A file loaded by llama.cpp once, for several checks. Use as a context manager."""

    def __init__(self, path: Path, *, n_threads: int | None = None) -> None:
        self._path = path
        self._n_threads = n_threads
        self._stack = contextlib.ExitStack()

    @cached_property
    def headers(self) -> tuple[GGUFHeader, ...]:
        """The headers of all its parts. Raises what :func:`read_headers` raises."""
        return read_headers(self._path)

    @cached_property
    def _loaded(self) -> Probe | EngineError:
        try:
            probe = Probe(self.headers[0], n_threads=_threads(self.headers, self._n_threads))
        except EngineError as error:
            return error
        return self._stack.enter_context(probe)

    @property
    def probe(self) -> Probe:
        """The model. Raises what loading it raises (EngineErrors)."""
        if isinstance(self._loaded, EngineError):
            raise self._loaded
        return self._loaded

    @property
    def vocab(self) -> Vocab:
        """Its vocabulary, which can be had of a file whose weights cannot be loaded as well."""
        if isinstance(self._loaded, EngineError):
            return self._stack.enter_context(VocabFile(self._path)).vocab
        return self._loaded.model.vocab

    def __enter__(self) -> LoadedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


class CheckFailed(Exception):
    """A check did not pass."""


def _check_header(headers: Sequence[GGUFHeader], plan: Plan, model: Model) -> str:
    header = headers[0]
    found = {
        tensor.name: (tensor.shape[::-1], tensor.type.name)
        for part in headers
        for tensor in part.tensors
    }
    planned = {tensor.name: (tensor.shape, tensor.target.name) for tensor in plan.tensors}
    if found != planned:
        differing = sorted(set(found.items()) ^ set(planned.items()))
        raise CheckFailed(f"differs from the plan at {differing[0][0]}")
    if header.architecture != model.architecture:
        raise CheckFailed(f"names the architecture {header.architecture!r:.60}")
    return f"{len(found)} tensors as planned"


def _check_vocabulary(vocab: Vocab, vocabulary: Vocabulary, warn: Callable[[str], None]) -> str:
    if vocabulary.judge_on is not None:
        natively, warnings = vocabulary.judge_on(vocab)
        for warning in warnings:
            warn(warning)
    else:
        natively = agreement_of(vocab.tokenize_natively, vocab, vocabulary)
        if natively != vocabulary.agreement:
            first = next(iter(natively.first_differences), None)
            raise CheckFailed(f"{natively.summary()} when read back; {first}")
    if vocabulary.kept is Kept.NOTHING:
        return natively.summary()
    exactly = agreement_of(vocab.tokenize, vocab, vocabulary)
    if not exactly.complete:
        raise CheckFailed(
            f"{exactly.summary()} with the {vocabulary.kept.value} that the file keeps"
        )
    return f"{natively.summary()}; all with the {vocabulary.kept.value} that the file keeps"


def _check_forward_pass(probe: Probe, vocabulary: Vocabulary) -> str:
    return forward_pass(probe, vocabulary.reference.encode(TEXT)[:MAX_TOKENS] or [0])


def forward_pass(probe: Probe, tokens: Sequence[int]) -> str:
    """Compute with a model, and say what came out. Raises CheckFailed, and EngineErrors."""
    is_encoder = probe.model.is_encoder
    values = probe.embedding(tokens) if is_encoder else probe.logits(tokens)
    what = "embedding" if is_encoder else "logits"
    if not np.isfinite(values).all():
        raise CheckFailed(f"the {what} are NaN or infinite")
    if values.size > 1 and values.max() == values.min():  # a reranker gives one value
        raise CheckFailed(f"the {what} are all the same")
    return f"finite {what} for {len(tokens)} tokens"


def _threads(headers: Sequence[GGUFHeader], n_threads: int | None) -> int:
    """A small model is computed sooner by one thread than by several that wait for each other."""
    n_bytes = sum(header.n_bytes for header in headers)
    return min(n_threads or available_cpus(), 1 + n_bytes // _BYTES_A_THREAD)
