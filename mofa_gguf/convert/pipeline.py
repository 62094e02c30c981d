"""The road from a checkpoint folder to a verified GGUF file, stage by stage."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mofa_gguf.convert.checkpoint import Checkpoint, open_checkpoint
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.gguf_format import data_size, header_bytes
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.output import PartialFile, check_space, check_target
from mofa_gguf.convert.plan import Plan, make_plan
from mofa_gguf.convert.provenance import general_metadata
from mofa_gguf.convert.quantizations import Quantization
from mofa_gguf.convert.report import Check, ConversionProgress, ConversionReport, TensorReport
from mofa_gguf.convert.tokenizer import Vocabulary, build_vocabulary
from mofa_gguf.convert.verify import verify
from mofa_gguf.convert.writer import Written, write_gguf

logger = logging.getLogger(__name__)

Observer = Callable[[ConversionProgress], None]


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    source: Path
    output: Path
    quantization: Quantization
    force: bool = False
    n_threads: int | None = None
    verify: bool = True
    dry_run: bool = False
    allow_tokenizer_mismatch: bool = False
    observer: Observer | None = None


@dataclass
class _Stages:
    """Times the stages and tells the observer about them."""

    observer: Observer | None
    seconds: dict[str, float] = field(default_factory=dict)
    n_tensors: int = 0
    n_bytes: int = 0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.tell(name, Written("", 0, 0))
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - began

    def tell(self, stage: str, written: Written) -> None:
        if self.observer is not None:
            self.observer(
                ConversionProgress(
                    stage,
                    written.tensor,
                    written.n_tensors,
                    self.n_tensors,
                    written.n_bytes,
                    self.n_bytes,
                )
            )


def run(order: Order) -> ConversionReport:
    """Convert as ordered. Raises the errors of :mod:`mofa_gguf.convert.errors`."""
    if not order.dry_run:
        check_target(order.output, force=order.force)
    stages = _Stages(order.observer)
    with contextlib.ExitStack() as stack:
        with stages.stage("reading"):
            checkpoint = stack.enter_context(open_checkpoint(order.source))
            model = family_of(checkpoint).read()
            plan = make_plan(model, order.quantization)
        stages.n_tensors, stages.n_bytes = len(plan.tensors), plan.n_bytes
        with stages.stage("tokenizer"):
            vocabulary = build_vocabulary(
                checkpoint.folder,
                config=checkpoint.config.values,
                n_vocab=model.n_vocab,
                allow_mismatch=order.allow_tokenizer_mismatch,
            )
        metadata = _all_metadata(checkpoint, model, plan, vocabulary)
        n_bytes = len(header_bytes(metadata, plan.tensors)) + data_size(plan.tensors)
        checks: tuple[Check, ...] = ()
        if not order.dry_run:
            check_space(order.output, n_bytes)
            checks = _write_and_verify(order, stages, metadata, plan, model, vocabulary)
        return _report(order, stages, checkpoint, model, plan, vocabulary, n_bytes, checks)


def _all_metadata(
    checkpoint: Checkpoint, model: Model, plan: Plan, vocabulary: Vocabulary
) -> Metadata:
    """In the order of the file: what it is, how it computes, how it reads."""
    metadata = Metadata()
    metadata.update(model.metadata)
    metadata.update(general_metadata(checkpoint, plan, vocabulary.metadata()))
    metadata.update(vocabulary.metadata())
    return metadata


def _write_and_verify(
    order: Order,
    stages: _Stages,
    metadata: Metadata,
    plan: Plan,
    model: Model,
    vocabulary: Vocabulary,
) -> tuple[Check, ...]:
    """The file gets its name only when it passed its checks."""
    checks: tuple[Check, ...] = ()
    with PartialFile(order.output) as output:
        with stages.stage("writing"):
            write_gguf(
                output,
                metadata,
                plan,
                n_threads=order.n_threads or _available_cpus(),
                observe=lambda written: stages.tell("writing", written),
            )
        if order.verify:
            with stages.stage("verifying"):
                checks = tuple(
                    verify(
                        output.path,
                        plan,
                        model,
                        vocabulary,
                        target=order.output,
                        n_threads=order.n_threads,
                    )
                )
        output.commit()
    logger.info("wrote %s", order.output)
    return checks


def _available_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _report(
    order: Order,
    stages: _Stages,
    checkpoint: Checkpoint,
    model: Model,
    plan: Plan,
    vocabulary: Vocabulary,
    n_bytes: int,
    checks: tuple[Check, ...],
) -> ConversionReport:
    return ConversionReport(
        source=order.source,
        output=order.output,
        architecture=model.architecture,
        family=model.source_architecture,
        quantization=plan.quantization.name,
        n_parameters=plan.n_parameters,
        tensors=tuple(
            TensorReport(
                name=tensor.name,
                source_name=_in_short(tensor.weights.sources),
                shape=tensor.shape,
                source_type=tensor.weights.dtype,
                target_type=tensor.target.name,
                n_bytes=tensor.n_bytes,
            )
            for tensor in plan.tensors
        ),
        n_bytes_in=checkpoint.n_bytes,
        n_bytes_out=n_bytes,
        bits_per_weight=plan.bits_per_weight,
        pre_tokenizer=vocabulary.pre_tokenizer,
        skipped=model.skipped,
        checks=checks,
        warnings=(*model.warnings, *vocabulary.warnings),
        seconds=stages.seconds,
        dry_run=order.dry_run,
    )


def _in_short(names: tuple[str, ...]) -> str:
    """The sources of a tensor; a stack of experts may have hundreds."""
    if len(names) <= 2:
        return ", ".join(names)
    return f"{names[0]}, ..., {names[-1]} ({len(names)} tensors)"
