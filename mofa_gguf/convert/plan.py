"""The plan of a conversion: every tensor with its type and place. What a dry run shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.choice import choose_types, wants_importance
from mofa_gguf.convert.errors import BadTensor, TypeChoiceError
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.overrides import NO_OVERRIDES, Overrides
from mofa_gguf.convert.quantizations import Quantization
from mofa_gguf.convert.report import TensorReport, in_short
from mofa_gguf.convert.safetensors_file import FLOAT_TYPES
from mofa_gguf.convert.weights import Weights
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME, TensorType

if TYPE_CHECKING:
    from mofa_gguf.convert.importance import Importance

_BLOCK_TYPES = tuple(name for name, kind in TYPES_BY_NAME.items() if kind.block_size > 1)
MAX_NAME_BYTES = 63  # GGML_MAX_NAME with its terminator


class PlannedTensor(NamedTuple):
    """One tensor of the file to be written."""

    name: str
    weights: Weights
    target: TensorType
    importance: npt.NDArray[np.float32] | None = None
    """A weight for each column of each matrix, shape (matrices, row length)."""

    @property
    def is_quantized_here(self) -> bool:
        """Whether the values change their type on the way."""
        return self.weights.dtype != self.target.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes as transformers has them, the row's length last."""
        return self.weights.shape

    @property
    def n_bytes(self) -> int:
        """Bytes in the file, without padding."""
        return self.weights.n_rows * self.target.row_bytes(self.weights.row_length)


@dataclass(frozen=True)
class Plan:
    """All tensors in the order in which they are written."""

    quantization: Quantization
    tensors: tuple[PlannedTensor, ...]
    warnings: tuple[str, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors, without padding."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def n_parameters(self) -> int:
        """Elements of all tensors that come from the checkpoint."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors if tensor.weights.sources)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the file's tensors for each parameter."""
        return 8 * self.n_bytes / self.n_parameters if self.n_parameters else 0.0

    def reports(self) -> tuple[TensorReport, ...]:
        """The tensors as plain values."""
        return tuple(
            TensorReport(
                name=tensor.name,
                source_name=in_short(tensor.weights.sources),
                shape=tensor.shape,
                source_type=tensor.weights.dtype,
                target_type=tensor.target.name,
                n_bytes=tensor.n_bytes,
            )
            for tensor in self.tensors
        )


def make_plan(
    model: Model,
    quantization: Quantization,
    overrides: Overrides = NO_OVERRIDES,
    importance: Importance | None = None,
) -> Plan:
    """Choose each tensor's type. Raises BadTensor where llama.cpp could not hold a tensor.

    Raises OverrideError and TypeChoiceError for overrides that cannot be followed, and
    ImportanceError for an importance matrix of another model.
    """
    for tensor in model.tensors:
        _check(tensor.name, tensor.weights)
    shapes = [(tensor.name, tensor.weights.shape) for tensor in model.tensors]
    types = dict.fromkeys((tensor.name for tensor in model.tensors), TYPES_BY_NAME["F32"])
    types |= choose_types(
        shapes, quantization, model.traits, overrides, has_importance=importance is not None
    )
    kept = model.half_precision.get(quantization.name, ())
    types |= {
        name: TYPES_BY_NAME["F16"]
        for name in types
        if any(part in name for part in kept)
        and not (overrides.pure or overrides.for_name(name) is not None)
    }
    # What is in blocks already stays as it is: quantizing again would only lose.
    blocks = {
        tensor.name: TYPES_BY_NAME[tensor.weights.dtype]
        for tensor in model.tensors
        if tensor.weights.dtype not in FLOAT_TYPES
    }
    types |= blocks
    plan = plan_of(
        [(tensor.name, tensor.weights) for tensor in model.tensors],
        types,
        quantization,
        overrides,
        importance,
    )
    asked = [name for name in blocks if overrides.for_name(name) not in (None, blocks[name])]
    if not asked:
        return plan
    warning = f"{len(asked)} tensors stay {blocks[asked[0]].name}, as the checkpoint has them"
    return replace(plan, warnings=(*plan.warnings, f"--tensor-type: {warning}"))


def plan_of(
    tensors: Sequence[tuple[str, Weights]],
    types: Mapping[str, TensorType],
    quantization: Quantization,
    overrides: Overrides,
    importance: Importance | None,
) -> Plan:
    """The plan for types that are chosen, with what the importance matrix says of each tensor."""
    planned = []
    for name, weights in tensors:
        tensor = PlannedTensor(name, weights, types[name])
        if importance is not None and tensor.is_quantized_here:
            tensor = tensor._replace(importance=importance.of(name, weights.shape))
        planned.append(tensor)
    unused = overrides.unused([name for name, _ in tensors])
    warnings = [f"--tensor-type {pattern} fits no tensor's name" for pattern in unused]
    return Plan(quantization, tuple(planned), tuple(warnings))


def lacks_importance(plan: Plan) -> TypeChoiceError | None:
    """The error for the first tensor that needs weights from an importance matrix and has none."""
    for tensor in plan.tensors:
        if (
            tensor.importance is None
            and tensor.is_quantized_here
            and wants_importance(tensor.name, tensor.target, plan.quantization)
        ):
            return TypeChoiceError(
                tensor.name,
                tensor.target.name,
                "without an importance matrix the model would be garbage; give one that has this "
                "tensor (--imatrix FILE; mofa-gguf imatrix makes one), or choose a type of more "
                "bits",
            )
    return None


def _check(name: str, weights: Weights) -> None:
    problem = None
    if weights.dtype not in (*FLOAT_TYPES, *_BLOCK_TYPES):
        problem = f"has the type {weights.dtype}; weights must be {', '.join(FLOAT_TYPES)}"
    elif len(name.encode()) > MAX_NAME_BYTES or not 1 <= len(weights.shape) <= 4:
        problem = f"cannot become the GGUF tensor {name!r:.80}"
    if problem:
        source = weights.sources[0] if weights.sources else name
        raise BadTensor(weights.origin or "computed", source, problem)
