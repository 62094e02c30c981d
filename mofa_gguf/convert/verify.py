"""Is the written file what it should be? Read back, tokenized with, computed with.

Every check raises VerificationError when it fails; the ones that passed are in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mofa_gguf.convert.errors import VerificationError
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.plan import Plan
from mofa_gguf.convert.report import Check
from mofa_gguf.convert.tokenizer import Vocabulary, check_vocabulary
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.header import read_header
from mofa_gguf.engine.logits import Probe

_TEXT = "The quick brown fox jumps over the lazy dog."
_MAX_TOKENS = 16


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

    ``target`` is the name that it will get, and that errors name. Raises VerificationError.
    """
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("header", lambda: _check_header(path, plan, model)),
        ("vocabulary", lambda: _check_vocabulary(path, vocabulary)),
        ("forward pass", lambda: _check_forward_pass(path, vocabulary, n_threads)),
    )
    for name, check in checks:
        try:
            yield Check(name, True, check())
        except (EngineError, _Failed) as error:
            raise VerificationError(target, name, str(error)) from error


class _Failed(Exception):
    """A check did not pass."""


def _check_header(path: Path, plan: Plan, model: Model) -> str:
    header = read_header(path)
    found = {tensor.name: (tensor.shape[::-1], tensor.type.name) for tensor in header.tensors}
    planned = {tensor.name: (tensor.shape, tensor.target.name) for tensor in plan.tensors}
    if found != planned:
        differing = sorted(set(found.items()) ^ set(planned.items()))
        raise _Failed(f"differs from the plan at {differing[0][0]}")
    if header.architecture != model.architecture:
        raise _Failed(f"names the architecture {header.architecture!r}")
    return f"{len(found)} tensors as planned"


def _check_vocabulary(path: Path, vocabulary: Vocabulary) -> str:
    agreement = check_vocabulary(path, vocabulary)
    # A disagreement that was known and accepted before writing is no fault of the file.
    if not agreement.acceptable and vocabulary.agreement.acceptable:
        first = next(iter(agreement.first_differences), None)
        raise _Failed(f"{agreement.summary()}; {first}")
    return agreement.summary()


def _check_forward_pass(path: Path, vocabulary: Vocabulary, n_threads: int | None) -> str:
    tokens = vocabulary.reference.encode(_TEXT)[:_MAX_TOKENS] or [0]
    with Probe(path, n_threads=n_threads) as probe:
        is_encoder = probe.model.is_encoder
        values = probe.embedding(tokens) if is_encoder else probe.logits(tokens)
    what = "embedding" if is_encoder else "logits"
    if not np.isfinite(values).all():
        raise _Failed(f"the {what} are NaN or infinite")
    if float(values.std()) == 0.0:
        raise _Failed(f"the {what} are all the same")
    return f"finite {what} for {len(tokens)} tokens"
