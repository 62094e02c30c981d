"""The plan of a conversion: every tensor with its type and place. What a dry run shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.mixture import choose_types
from mofa_gguf.convert.quantizations import Quantization
from mofa_gguf.convert.safetensors_file import FLOAT_TYPES
from mofa_gguf.convert.weights import Weights
from mofa_gguf.engine.tensor_types import TYPES_BY_NAME, TensorType

_BLOCK_TYPES = tuple(name for name, kind in TYPES_BY_NAME.items() if kind.block_size > 1)
MAX_NAME_BYTES = 63  # GGML_MAX_NAME with its terminator


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file to be written."""

    name: str
    weights: Weights
    target: TensorType

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


def make_plan(model: Model, quantization: Quantization) -> Plan:
    """Choose each tensor's type. Raises BadTensor where llama.cpp could not hold a tensor."""
    for tensor in model.tensors:
        _check(tensor.name, tensor.weights)
    shapes = [(tensor.name, tensor.weights.shape) for tensor in model.tensors]
    types = choose_types(shapes, quantization, model.traits)
    kept = model.half_precision.get(quantization.name, ())
    types |= {name: TYPES_BY_NAME["F16"] for name in types if any(part in name for part in kept)}
    # What is in blocks already stays as it is: quantizing again would only lose.
    types |= {
        tensor.name: TYPES_BY_NAME[tensor.weights.dtype]
        for tensor in model.tensors
        if tensor.weights.dtype not in FLOAT_TYPES
    }
    return Plan(
        quantization,
        tuple(
            PlannedTensor(tensor.name, tensor.weights, types[tensor.name])
            for tensor in model.tensors
        ),
    )


def _check(name: str, weights: Weights) -> None:
    problem = None
    if weights.dtype not in (*FLOAT_TYPES, *_BLOCK_TYPES):
        problem = f"has the type {weights.dtype}; weights must be {', '.join(FLOAT_TYPES)}"
    elif len(name.encode()) > MAX_NAME_BYTES or not 1 <= len(weights.shape) <= 4:
        problem = f"cannot become the GGUF tensor {name!r:.80}"
    if problem:
        source = weights.sources[0] if weights.sources else name
        raise BadTensor(weights.origin or "computed", source, problem)
