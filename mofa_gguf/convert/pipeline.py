"""The road from a checkpoint folder to a verified GGUF file, stage by stage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mofa_gguf.convert.checkpoint import Checkpoint, open_checkpoint
from mofa_gguf.convert.delivery import Checks, Delivery, deliver, parts_of
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.model_card import read_model_card
from mofa_gguf.convert.output import check_target
from mofa_gguf.convert.overrides import NO_OVERRIDES, Overrides
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import Plan, lacks_importance, make_plan
from mofa_gguf.convert.provenance import general_metadata, recipe_metadata
from mofa_gguf.convert.quantizations import Quantization
from mofa_gguf.convert.report import Check, ConversionReport
from mofa_gguf.convert.stages import Observer, Stages, available_cpus
from mofa_gguf.convert.tokenizer import Vocabulary, build_vocabulary
from mofa_gguf.convert.writer import Encoding

if TYPE_CHECKING:
    from mofa_gguf.convert.comparison import Comparison
    from mofa_gguf.convert.deep import DeepCheck
    from mofa_gguf.convert.importance import Importance


class Order(NamedTuple):
    """What was asked for."""

    source: Path
    output: Path
    quantization: Quantization
    overrides: Overrides = NO_OVERRIDES
    imatrix: Path | None = None
    max_part_bytes: int | None = None
    n_ctx: int | None = None
    force: bool = False
    n_threads: int | None = None
    verify: bool = True
    deep_text: str | None = None
    """A text on which the file is compared with the F32 weights."""
    dry_run: bool = False
    allow_tokenizer_mismatch: bool = False
    observer: Observer | None = None


def run(order: Order) -> ConversionReport:
    """Convert as ordered. Raises the errors of :mod:`mofa_gguf.convert.errors`."""
    delivery = Delivery(order.output, order.force, order.max_part_bytes)
    if not order.dry_run and order.max_part_bytes is None:
        check_target(order.output, force=order.force)
    stages = Stages(order.observer)
    with contextlib.ExitStack() as stack:
        with stages.stage("reading"):
            importance = _importance(order)
            checkpoint = stack.enter_context(open_checkpoint(order.source))
            model = family_of(checkpoint).read()
            plan = make_plan(model, order.quantization, order.overrides, importance)
        missing = lacks_importance(plan)
        if missing is not None:
            if not order.dry_run:
                raise missing
            plan = replace(plan, warnings=(*plan.warnings, str(missing)))
        stages.n_tensors, stages.n_bytes = len(plan.tensors), plan.n_bytes
        if not order.dry_run:
            # Weights are quantized while the tokenizer is measured.
            n_threads = order.n_threads or available_cpus()
            encoding = stack.enter_context(Encoding(plan.tensors, n_threads=n_threads))
        with stages.stage("tokenizer"):
            vocabulary = build_vocabulary(
                checkpoint.folder,
                config=checkpoint.config.values,
                n_vocab=model.n_vocab,
                allow_mismatch=order.allow_tokenizer_mismatch,
                is_read_back=order.verify and not order.dry_run,
            )
        card = read_model_card(checkpoint.folder)
        metadata = _all_metadata(order, checkpoint, model, plan, vocabulary, importance)
        metadata.update(card.metadata)
        plan = replace(plan, warnings=(*plan.warnings, *card.warnings))
        parts = parts_of(delivery, metadata, plan)
        checks: tuple[Check, ...] = ()
        comparisons: list[Comparison] = []
        warnings: list[str] = []
        if not order.dry_run:
            deep = _deep_check(order, metadata, model, vocabulary, comparisons.append)
            if deep is not None:
                deep.make_sure_of_space(sum(part.n_bytes for part in parts))
            verifying = _checks(order, parts, plan, model, vocabulary, deep, warnings.append)
            checks = deliver(delivery, parts, encoding, stages, verifying)
            vocabulary = replace(vocabulary, warnings=(*vocabulary.warnings, *warnings))
        report = _report(order, stages, checkpoint, model, plan, vocabulary, parts, checks)
        if order.dry_run:
            return _with_memory(report, Part(order.output, metadata, plan), order.n_ctx)
        return replace(report, comparison=comparisons[0]) if comparisons else report


def _importance(order: Order) -> Importance | None:
    if order.imatrix is None:
        return None
    from mofa_gguf.convert.importance import read_importance

    return read_importance(order.imatrix)


def _with_memory(report: ConversionReport, whole: Part, n_ctx: int | None) -> ConversionReport:
    from mofa_gguf.convert.memory import memory_to_run

    return replace(report, memory=memory_to_run(whole, n_ctx))


def _checks(
    order: Order,
    parts: tuple[Part, ...],
    plan: Plan,
    model: Model,
    vocabulary: Vocabulary,
    deep: DeepCheck | None,
    warn: Callable[[str], None],
) -> Checks | None:
    if not order.verify:
        return None

    # Not at the end: the threads compute on while this is imported.
    from mofa_gguf.convert.verify import verify

    def checks(path: Path) -> Iterator[Check]:
        target, n_threads = parts[0].path, order.n_threads
        yield from verify(
            path, plan, model, vocabulary, target=target, warn=warn, n_threads=n_threads
        )
        if deep is not None:
            yield from deep.run(path)

    return checks


def _deep_check(
    order: Order,
    metadata: Metadata,
    model: Model,
    vocabulary: Vocabulary,
    tell: Callable[[Comparison], None],
) -> DeepCheck | None:
    if not order.verify or order.deep_text is None:
        return None
    from mofa_gguf.convert.deep import DeepCheck

    return DeepCheck(
        order.output, metadata, model, vocabulary, order.deep_text, order.n_threads, tell
    )


def _all_metadata(
    order: Order,
    checkpoint: Checkpoint,
    model: Model,
    plan: Plan,
    vocabulary: Vocabulary,
    importance: Importance | None,
) -> Metadata:
    """In the order of the file: what it is, how it computes, how it reads."""
    metadata = Metadata()
    metadata.update(model.metadata)
    metadata.update(general_metadata(checkpoint, plan, vocabulary.metadata()))
    metadata.update(recipe_metadata(order.quantization, order.overrides, importance))
    metadata.update(vocabulary.metadata())
    return metadata


def _report(
    order: Order,
    stages: Stages,
    checkpoint: Checkpoint,
    model: Model,
    plan: Plan,
    vocabulary: Vocabulary,
    parts: tuple[Part, ...],
    checks: tuple[Check, ...],
) -> ConversionReport:
    return ConversionReport(
        source=order.source,
        output=parts[0].path,
        architecture=model.architecture,
        family=model.source_architecture,
        quantization=plan.quantization.name,
        n_parameters=plan.n_parameters,
        tensors=plan.reports(),
        n_bytes_in=checkpoint.n_bytes,
        n_bytes_out=sum(part.n_bytes for part in parts),
        n_files=len(parts),
        bits_per_weight=plan.bits_per_weight,
        pre_tokenizer=vocabulary.pre_tokenizer,
        skipped=model.skipped,
        checks=checks,
        warnings=(*model.warnings, *plan.warnings, *vocabulary.warnings),
        seconds=stages.seconds,
        dry_run=order.dry_run,
    )
