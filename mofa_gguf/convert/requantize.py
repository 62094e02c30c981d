"""The road from a GGUF file to another one with other types, stage by stage.

Types and bytes are those that llama.cpp's quantizer writes (src/llama-quant.cpp); tensors stand in
its order, metadata is kept.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mofa_gguf import __version__
from mofa_gguf.convert.choice import choose_types
from mofa_gguf.convert.delivery import Delivery, deliver, parts_of
from mofa_gguf.convert.errors import (
    OutputError,
    OverrideError,
    TypeChoiceError,
    VerificationError,
)
from mofa_gguf.convert.families.base import Traits
from mofa_gguf.convert.gguf_source import GGUFSource, open_gguf, read_headers
from mofa_gguf.convert.importance import Importance, read_importance
from mofa_gguf.convert.memory import memory_to_run
from mofa_gguf.convert.metadata import Metadata, written_name
from mofa_gguf.convert.output import check_target
from mofa_gguf.convert.overrides import NO_OVERRIDES, Overrides
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import Plan, PlannedTensor, lacks_importance, plan_of
from mofa_gguf.convert.provenance import QUANTIZATION_VERSION, recipe_metadata
from mofa_gguf.convert.quantizations import COPY, Quantization
from mofa_gguf.convert.report import Check, ConversionReport
from mofa_gguf.convert.roles import in_order
from mofa_gguf.convert.safetensors_file import FLOAT_TYPES
from mofa_gguf.convert.stages import Observer, Stages, available_cpus
from mofa_gguf.convert.verify import MAX_TOKENS, TEXT, CheckFailed, LoadedFile, forward_pass
from mofa_gguf.convert.writer import Encoding
from mofa_gguf.engine.errors import EngineError, OutOfMemory
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME, TensorType
from mofa_gguf.engine.quantize import can_dequantize

logger = logging.getLogger(__name__)

# Layers of the models that llama.cpp takes for LLM_TYPE_70B (src/models, load_arch_hparams).
_LAYERS_OF_70B = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}


@dataclass(frozen=True)
class QuantizeOrder:
    """What was asked for."""

    source: Path
    output: Path
    quantization: Quantization
    overrides: Overrides = NO_OVERRIDES
    imatrix: Path | None = None
    allow_requantize: bool = False
    max_part_bytes: int | None = None
    n_ctx: int | None = None
    force: bool = False
    n_threads: int | None = None
    verify: bool = True
    dry_run: bool = False
    observer: Observer | None = None


def run(order: QuantizeOrder) -> ConversionReport:
    """Quantize as ordered. Raises the errors of :mod:`mofa_gguf.convert.errors`."""
    if not order.dry_run and order.max_part_bytes is None:
        check_target(order.output, force=order.force)
    delivery = Delivery(order.output, order.force, order.max_part_bytes)
    stages = Stages(order.observer)
    with contextlib.ExitStack() as stack:
        with stages.stage("reading"):
            importance = read_importance(order.imatrix) if order.imatrix else None
            source = stack.enter_context(open_gguf(order.source))
            plan = make_plan(source, order, importance)
        missing = lacks_importance(plan)
        if missing is not None:
            if not order.dry_run:
                raise missing
            plan = replace(plan, warnings=(*plan.warnings, str(missing)))
        stages.n_tensors, stages.n_bytes = len(plan.tensors), plan.n_bytes
        metadata = _metadata(source, order, importance)
        parts = parts_of(delivery, metadata, plan)
        _refuse_own_target(source, parts)
        checks: tuple[Check, ...] = ()
        if not order.dry_run:
            check = (lambda path: _verify(path, plan, order, parts)) if order.verify else None
            n_threads = order.n_threads or available_cpus()
            with Encoding(plan.tensors, n_threads=n_threads) as encoding:
                checks = deliver(delivery, parts, encoding, stages, check)
        report = _report(order, source, plan, parts, stages, checks)
        if order.dry_run:
            whole = Part(order.output, metadata, plan)
            return replace(report, memory=memory_to_run(whole, order.n_ctx))
        return report


def make_plan(source: GGUFSource, order: QuantizeOrder, importance: Importance | None) -> Plan:
    """Every tensor's type. Raises TypeChoiceError where one cannot be had from what the file has.

    Raises OverrideError and ImportanceError too.
    """
    found = sorted(
        ((tensor.name, tensor.weights) for tensor in source.tensors()),
        key=lambda tensor: in_order(tensor[0]),
    )
    types = {name: TYPES_BY_NAME[weights.dtype] for name, weights in found}
    if order.quantization is COPY:
        if order.overrides != NO_OVERRIDES or importance is not None:
            raise OverrideError("COPY", "keeps every tensor as it is; there is nothing to choose")
    else:
        types |= choose_types(
            [(name, weights.shape) for name, weights in found],
            order.quantization,
            traits_of(source.header),
            order.overrides,
            has_importance=importance is not None,
        )
    plan = plan_of(found, types, order.quantization, order.overrides, importance)
    for tensor in plan.tensors:
        if tensor.is_quantized_here:
            _check_source(tensor, TYPES_BY_NAME[tensor.weights.dtype], order)
    return plan


def _check_source(tensor: PlannedTensor, stored: TensorType, order: QuantizeOrder) -> None:
    if stored.name in FLOAT_TYPES:
        return
    if not can_dequantize(stored):
        problem = f"it is {stored.name}, which cannot be turned back into floats"
    elif not order.allow_requantize:
        problem = (
            f"it is {stored.name} already, and quantizing again loses more than quantizing the "
            "original once; use a file of 16 or 32 bits, or allow it (--allow-requantize)"
        )
    else:
        return
    raise TypeChoiceError(tensor.name, tensor.target.name, problem)


def traits_of(header: GGUFHeader) -> Traits:
    """What the choice of types looks at, from a file's own keys."""

    def first(name: str, default: int) -> int:
        value = header.hyperparameter(name, default)
        value = value[0] if isinstance(value, list) and value else value
        return value if isinstance(value, int) else default

    n_heads = first("attention.head_count", 0)
    n_kv_heads = first("attention.head_count_kv", n_heads)
    n_layers, n_experts = first("block_count", 0), first("expert_count", 0)
    is_70b = _LAYERS_OF_70B.get(header.architecture) == n_layers
    if header.architecture == "llama":
        is_70b = is_70b and n_heads != n_kv_heads and n_experts != 8
    return Traits(
        header.architecture,
        n_layers,
        n_gqa=n_heads // n_kv_heads if n_kv_heads else 0,
        n_experts=n_experts,
        is_70b=is_70b,
    )


def _metadata(source: GGUFSource, order: QuantizeOrder, importance: Importance | None) -> Metadata:
    """The source's, with what this step changes and where it started from."""
    metadata = source.metadata()
    if order.quantization is not COPY:
        metadata.uint32("general.file_type", order.quantization.file_type)
    metadata.uint32("general.quantization_version", QUANTIZATION_VERSION)
    metadata.string("mofa_gguf.version", __version__)
    metadata.string("mofa_gguf.source", written_name(order.source.name))
    metadata.string("mofa_gguf.source_sha256", source.fingerprint())
    metadata.update(recipe_metadata(order.quantization, order.overrides, importance))
    return metadata


def _refuse_own_target(source: GGUFSource, parts: tuple[Part, ...]) -> None:
    """The source stays mapped while the target is written, so they must be different files."""
    sources = {header.path.resolve() for header in source.headers}
    for part in parts:
        if part.path.resolve() in sources:
            raise OutputError(part.path, "is the source itself; choose another name")


def _verify(
    path: Path, plan: Plan, order: QuantizeOrder, parts: tuple[Part, ...]
) -> Iterator[Check]:
    """Read back, loaded, computed with. Raises VerificationError."""
    target = parts[0].path
    planned = {tensor.name: (tensor.shape, tensor.target.name) for tensor in plan.tensors}
    found = {
        tensor.name: (tensor.shape[::-1], tensor.type.name)
        for header in read_headers(path)
        for tensor in header.tensors
    }
    if found != planned:
        raise VerificationError(target, "header", "differs from the plan")
    yield Check("header", True, f"{len(found)} tensors as planned")
    try:
        with LoadedFile(path, n_threads=order.n_threads) as file:
            tokens = file.vocab.tokenize(TEXT)[:MAX_TOKENS] or [0]
            detail = forward_pass(file.probe, tokens)
    except OutOfMemory as error:
        logger.warning("%s: the check 'forward pass' was left out: %s", target.name, error)
        return
    except (EngineError, CheckFailed) as error:
        problem = f"{error} (--no-verify keeps a file that is no language model)"
        raise VerificationError(target, "forward pass", problem) from error
    yield Check("forward pass", True, detail)


def _report(
    order: QuantizeOrder,
    source: GGUFSource,
    plan: Plan,
    parts: tuple[Part, ...],
    stages: Stages,
    checks: tuple[Check, ...],
) -> ConversionReport:
    pre_tokenizer = source.header.metadata.get("tokenizer.ggml.pre")
    return ConversionReport(
        source=order.source,
        output=parts[0].path,
        architecture=source.header.architecture,
        family="GGUF",
        quantization=plan.quantization.name,
        n_parameters=plan.n_parameters,
        tensors=plan.reports(),
        n_bytes_in=source.n_bytes,
        n_bytes_out=sum(part.n_bytes for part in parts),
        bits_per_weight=plan.bits_per_weight,
        pre_tokenizer=pre_tokenizer if isinstance(pre_tokenizer, str) else None,
        checks=checks,
        warnings=plan.warnings,
        seconds=stages.seconds,
        dry_run=order.dry_run,
        n_files=len(parts),
    )
