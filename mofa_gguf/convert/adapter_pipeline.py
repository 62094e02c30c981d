"""The road from a PEFT adapter to a GGUF adapter; the base checkpoint's family shows the way."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from mofa_gguf import __version__
from mofa_gguf.convert.adapter import AdapterTensors, adapter_tensors
from mofa_gguf.convert.adapter_file import Adapter, open_adapter
from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.errors import UnknownQuantization, VerificationError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.metadata import Metadata, written_name
from mofa_gguf.convert.output import PartialFile, check_space, check_target
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import Plan, PlannedTensor
from mofa_gguf.convert.quantizations import QUANTIZATIONS, Quantization
from mofa_gguf.convert.report import Check, ConversionReport
from mofa_gguf.convert.writer import Encoding, write_gguf
from mofa_gguf.engine.files.header import read_header

TYPES = ("F32", "F16", "BF16")
"""What an adapter's matrices may be: their rows are too short for blocks."""


@dataclass(frozen=True)
class AdapterOrder:
    """What was asked for."""

    source: Path
    base: Path
    output: Path
    type: Quantization
    force: bool = False
    verify: bool = True
    dry_run: bool = False


def type_named(name: str) -> Quantization:
    """The type called ``name``. Raises UnknownQuantization."""
    if name.strip().upper() not in TYPES:
        raise UnknownQuantization(name, TYPES)
    return QUANTIZATIONS[name.strip().upper()]


def run(order: AdapterOrder) -> ConversionReport:
    """Convert as ordered. Raises the errors of :mod:`mofa_gguf.convert.errors`."""
    began = time.perf_counter()
    if not order.dry_run:
        check_target(order.output, force=order.force)
    adapter = open_adapter(order.source)
    with open_checkpoint(order.base) as checkpoint:
        family = family_of(checkpoint)
        model = family.read()
        found = adapter_tensors(adapter, family, model)
        plan = Plan(
            order.type,
            tuple(PlannedTensor(it.name, it.weights, order.type.default) for it in found.tensors),
        )
        base_name = adapter.config.base_model or checkpoint.folder.resolve().name
        metadata = _metadata(order, adapter, found, model, base_name)
        part = Part(order.output, metadata, plan)
        checks = () if order.dry_run else _write(order, part)
        seconds = {"all": time.perf_counter() - began}
        return _report(order, adapter, model, part, checks, seconds)


def _metadata(
    order: AdapterOrder, adapter: Adapter, found: AdapterTensors, model: Model, base_name: str
) -> Metadata:
    """The keys that llama.cpp asks for (src/llama-adapter.cpp), and where the file comes from."""
    digest = hashlib.sha256(adapter.config.path.read_bytes() + adapter.file.header)
    metadata = Metadata()
    metadata.string("general.architecture", model.architecture)
    metadata.string("general.type", "adapter")
    metadata.string("general.name", written_name(order.source.resolve().name))
    metadata.uint32("general.file_type", order.type.file_type)
    metadata.uint32("general.base_model.count", 1)
    metadata.string("general.base_model.0.name", written_name(Path(base_name).name))
    metadata.string("adapter.type", "lora")
    metadata.float32("adapter.lora.alpha", found.alpha)
    metadata.string("mofa_gguf.version", __version__)
    metadata.string("mofa_gguf.source_sha256", digest.hexdigest())
    return metadata


def _write(order: AdapterOrder, part: Part) -> tuple[Check, ...]:
    """The file gets its name only when it is whole."""
    check_space(part.path, part.n_bytes)
    with PartialFile(part.path) as output:
        with Encoding(part.plan.tensors, n_threads=1) as encoding:
            write_gguf(output, part, encoding)
        checks = (_check(output.path, order, part.plan),) if order.verify else ()
        output.commit()
    return checks


def _check(path: Path, order: AdapterOrder, plan: Plan) -> Check:
    """llama.cpp takes an adapter only with its base model; here the header is read back."""
    found = {tensor.name: tensor.shape[::-1] for tensor in read_header(path).tensors}
    if found != {tensor.name: tensor.shape for tensor in plan.tensors}:
        raise VerificationError(order.output, "header", "differs from the plan")
    return Check("header", True, f"{len(found)} tensors as planned, all values finite")


def _report(
    order: AdapterOrder,
    adapter: Adapter,
    model: Model,
    part: Part,
    checks: tuple[Check, ...],
    seconds: dict[str, float],
) -> ConversionReport:
    plan = part.plan
    return ConversionReport(
        source=order.source,
        output=part.path,
        architecture=model.architecture,
        family=f"LoRA of {model.source_architecture}",
        quantization=order.type.name,
        n_parameters=plan.n_parameters,
        tensors=plan.reports(),
        n_bytes_in=adapter.file.n_bytes,
        n_bytes_out=part.n_bytes,
        bits_per_weight=plan.bits_per_weight,
        pre_tokenizer=None,
        checks=checks,
        seconds=seconds,
        dry_run=order.dry_run,
    )
