"""Is the written file what it should be? Read back, tokenized with, computed with.

Every check raises VerificationError when it fails; the ones that passed are in the report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mofa_gguf.convert.errors import VerificationError
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.gguf_source import read_headers
from mofa_gguf.convert.plan import Plan
from mofa_gguf.convert.report import Check
from mofa_gguf.convert.stages import available_cpus
from mofa_gguf.convert.tokenizer import Kept, Vocabulary, check_vocabulary
from mofa_gguf.engine.errors import EngineError, OutOfMemory
from mofa_gguf.engine.models.logits import Probe

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
    n_threads: int | None = None,
) -> Iterator[Check]:
    """Check the file written to ``path``, cheapest check first.

    ``target`` is the name that it will get, and that errors name. A check for which the memory is
    too small is left out, with a warning. Raises VerificationError.
    """
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("header", lambda: _check_header(path, plan, model)),
        ("vocabulary", lambda: _check_vocabulary(path, vocabulary)),
        ("forward pass", lambda: _check_forward_pass(path, vocabulary, n_threads)),
    )
    for name, check in checks:
        try:
            yield Check(name, True, check())
        except OutOfMemory as error:
            # The file may be meant for a larger machine.
            logger.warning("%s: the check %r was left out: %s", target.name, name, error)
        except (EngineError, CheckFailed) as error:
            raise VerificationError(target, name, str(error)) from error


class CheckFailed(Exception):
    """A check did not pass."""


def _check_header(path: Path, plan: Plan, model: Model) -> str:
    headers = read_headers(path)
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
        raise CheckFailed(f"names the architecture {header.architecture!r}")
    return f"{len(found)} tensors as planned"


def _check_vocabulary(path: Path, vocabulary: Vocabulary) -> str:
    natively = check_vocabulary(path, vocabulary, natively=True)
    if natively != vocabulary.agreement:
        first = next(iter(natively.first_differences), None)
        raise CheckFailed(f"{natively.summary()} when read back; {first}")
    if vocabulary.kept is Kept.NOTHING:
        return natively.summary()
    exactly = check_vocabulary(path, vocabulary)
    if not exactly.complete:
        raise CheckFailed(
            f"{exactly.summary()} with the {vocabulary.kept.value} that the file keeps"
        )
    return f"{natively.summary()}; all with the {vocabulary.kept.value} that the file keeps"


def _check_forward_pass(path: Path, vocabulary: Vocabulary, n_threads: int | None) -> str:
    tokens = vocabulary.reference.encode(TEXT)[:MAX_TOKENS] or [0]
    return forward_pass(path, lambda probe: tokens, n_threads)


def forward_pass(
    path: Path, tokens_for: Callable[[Probe], Sequence[int]], n_threads: int | None = None
) -> str:
    """Compute with the file, and say what came out. Raises CheckFailed, and EngineErrors."""
    with Probe(path, n_threads=_threads(path, n_threads)) as probe:
        tokens = tokens_for(probe)
        is_encoder = probe.model.is_encoder
        values = probe.embedding(tokens) if is_encoder else probe.logits(tokens)
    what = "embedding" if is_encoder else "logits"
    if not np.isfinite(values).all():
        raise CheckFailed(f"the {what} are NaN or infinite")
    if values.size > 1 and values.max() == values.min():  # a reranker gives one value
        raise CheckFailed(f"the {what} are all the same")
    return f"finite {what} for {len(tokens)} tokens"


def _threads(path: Path, n_threads: int | None) -> int:
    """A small model is computed sooner by one thread than by several that wait for each other."""
    n_bytes = sum(header.n_bytes for header in read_headers(path))
    return min(n_threads or available_cpus(), 1 + n_bytes // _BYTES_A_THREAD)
