"""From a plan to the file under its name, or to the set of files: space, writing, checks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.output import PartialFile, check_space, check_target
from mofa_gguf.convert.output_set import PartialSet
from mofa_gguf.convert.parts import Part, divide
from mofa_gguf.convert.plan import Plan
from mofa_gguf.convert.report import Check
from mofa_gguf.convert.stages import Stages
from mofa_gguf.convert.writer import Encoding, Written, write_gguf

logger = logging.getLogger(__name__)

Checks = Callable[[Path], Iterable[Check]]
"""Checks the file at a path that is not yet its name; raises VerificationError."""


class Delivery(NamedTuple):
    """Where the file is to be, and how it gets there."""

    target: Path
    force: bool = False
    max_part_bytes: int | None = None
    """Several files where one would be larger."""


def parts_of(delivery: Delivery, metadata: Metadata, plan: Plan) -> tuple[Part, ...]:
    """The files that :func:`deliver` will write."""
    return divide(delivery.target, metadata, plan, delivery.max_part_bytes)


def deliver(
    delivery: Delivery,
    parts: tuple[Part, ...],
    encoding: Encoding,
    stages: Stages,
    checks: Checks | None,
) -> tuple[Check, ...]:
    """Write all parts, check them, and only then give them their names.

    Raises OutputError, BadTensor, CheckpointError, and VerificationError of the ``checks``.
    """
    for part in parts:
        check_target(part.path, force=delivery.force)
    check_space(delivery.target, sum(part.n_bytes for part in parts))
    if len(parts) == 1:
        with PartialFile(parts[0].path) as output:
            with stages.stage("writing"):
                _write(output, parts[0], encoding, stages, Written("", 0, 0))
            passed = _check(checks, output.path, stages)
            output.commit()
    else:
        with PartialSet([part.path for part in parts]) as outputs:
            with stages.stage("writing"):
                done = Written("", 0, 0)
                for i, part in enumerate(parts):
                    done = _write(outputs.open(i), part, encoding, stages, done)
            passed = _check(checks, outputs.path, stages)
            outputs.commit()
    logger.info("wrote %s", parts[0].path)
    return passed


def _write(
    output: PartialFile, part: Part, encoding: Encoding, stages: Stages, before: Written
) -> Written:
    """Write one part; what is written after it, the parts before it included."""
    now = before

    def observe(written: Written) -> None:
        nonlocal now
        now = Written(
            written.tensor, before.n_tensors + written.n_tensors, before.n_bytes + written.n_bytes
        )
        stages.tell("writing", now)

    write_gguf(output, part, encoding, observe=observe)
    output.settle()
    return now


def _check(checks: Checks | None, path: Path, stages: Stages) -> tuple[Check, ...]:
    if checks is None:
        return ()
    with stages.stage("verifying"):
        return tuple(checks(path))
