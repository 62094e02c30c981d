"""Which tensor gets which type: llama.cpp's choice, as a function of names, shapes and layers.

Behaviour: src/llama-quant.cpp in llama.cpp (``tensor_allows_quantization``,
``llama_tensor_get_type``), for quantizations without importance matrix. Tests compare with the
files that ``llama_model_quantize`` writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from mofa_gguf.convert.families.base import Traits
from mofa_gguf.convert.quantizations import Quantization
from mofa_gguf.engine.tensor_types import TYPES_BY_NAME, TensorType


class Role(Enum):
    """What a tensor does, as far as the choice of its type goes."""

    EMBEDDING = auto()
    OUTPUT = auto()
    ATTN_V = auto()
    ATTN_K = auto()
    ATTN_OUTPUT = auto()
    FFN_DOWN = auto()
    OTHER = auto()


# Parts of names, first match counts. A fused qkv matrix counts as a value matrix.
_ROLE_PARTS: tuple[tuple[str, Role], ...] = (
    ("attn_qkv.weight", Role.ATTN_V),
    ("attn_kv_b.weight", Role.ATTN_V),
    ("attn_v.weight", Role.ATTN_V),
    ("attn_k.weight", Role.ATTN_K),
    ("attn_output.weight", Role.ATTN_OUTPUT),
    ("ffn_down", Role.FFN_DOWN),
)

# Matrices that stay in float32 as llama.cpp's converter writes them and its quantizer keeps them.
_FLOAT_PARTS = ("_norm.weight", "ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d")


def role_of(name: str) -> Role:
    """The role that a GGUF tensor's name tells."""
    if name == "output.weight":
        return Role.OUTPUT
    if name == "token_embd.weight":
        return Role.EMBEDDING
    return next((role for part, role in _ROLE_PARTS if part in name), Role.OTHER)


def stays_float32(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is kept in F32 in every quantization: vectors, norms, small tables."""
    n_dimensions = len(shape)
    leading = next((i for i, size in enumerate(shape) if size != 1), n_dimensions - 1)
    return (
        n_dimensions - leading < 2
        or not name.endswith(".weight")
        or any(part in name for part in _FLOAT_PARTS)
    )


@dataclass
class _Place:
    """Where in the model the next tensor of a role is."""

    i: int
    n: int
    traits: Traits

    @property
    def in_first_eighth(self) -> bool:
        return self.i < self.n // 8

    @property
    def wants_more_bits(self) -> bool:
        """The first and last eighth of the layers, and every third between."""
        return self.in_first_eighth or self.i >= 7 * self.n // 8 or (self.i - self.n // 8) % 3 == 2


Choice = Callable[[_Place], str | None]
"""A type's name, or None for the quantization's default."""


def _when(condition: Callable[[_Place], bool], name: str) -> Choice:
    return lambda place: name if condition(place) else None


def _always(name: str) -> Choice:
    return lambda place: name


_shared_values = _when(lambda place: place.traits.n_gqa >= 4, "Q4_K")
_more_bits = _when(lambda place: place.wants_more_bits, "Q6_K")

_ATTN_V: Mapping[str, Choice] = {
    "Q2_K": lambda place: _shared_values(place) or "Q3_K",
    "Q3_K_M": lambda place: "Q5_K" if place.i < 2 else "Q4_K",
    "Q3_K_L": _always("Q5_K"),
    "IQ3_S": _shared_values,
    "IQ3_M": _always("Q4_K"),
    "IQ4_NL": _when(lambda place: place.traits.n_gqa >= 4, "Q5_K"),
    "IQ4_XS": _when(lambda place: place.traits.n_gqa >= 4, "Q5_K"),
    "Q4_K_S": _when(lambda place: place.i < 4, "Q5_K"),
    "Q4_K_M": _more_bits,
    "Q5_K_M": _more_bits,
}

_FFN_DOWN: Mapping[str, Choice] = {
    "Q2_K": _always("Q3_K"),
    "Q3_K_M": lambda place: "Q5_K" if place.i < place.n // 16 else "Q4_K",
    "Q3_K_L": _always("Q5_K"),
    "IQ3_M": _when(
        lambda place: (
            place.in_first_eighth or (place.traits.n_experts == 8 and place.wants_more_bits)
        ),
        "Q4_K",
    ),
    "IQ4_NL": _when(lambda place: place.in_first_eighth, "Q5_K"),
    "IQ4_XS": _when(lambda place: place.in_first_eighth, "Q5_K"),
    "Q4_K_S": _when(lambda place: place.in_first_eighth, "Q5_K"),
    "Q4_K_M": _more_bits,
    "Q5_K_M": _more_bits,
}

# Falcon's own rules where they differ.
_FALCON_FFN_DOWN: Mapping[str, Choice] = {
    "Q3_K_M": lambda place: (
        "Q5_K" if place.i < place.n // 16 else "Q4_K" if place.wants_more_bits else "Q3_K"
    ),
    "Q3_K_L": _always("Q4_K"),
    "Q4_K_M": lambda place: (
        "Q6_K" if place.i < place.n // 16 else "Q5_K" if place.wants_more_bits else None
    ),
    "Q4_K_S": _always("Q4_K"),
}

_ATTN_OUTPUT: Mapping[str, str] = {
    "Q2_K": "Q3_K",
    "Q3_K_M": "Q4_K",
    "Q3_K_L": "Q5_K",
    "IQ3_M": "Q4_K",
}
_FALCON_ATTN_OUTPUT: Mapping[str, str] = {"Q3_K_L": "Q4_K"}
_EIGHT_EXPERTS_ATTN_OUTPUT = frozenset(
    ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS")
)

# Where a row is no multiple of 256 elements.
_FALLBACK: Mapping[str, str] = {
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "TQ1_0": "Q4_0",
    "TQ2_0": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_LAYER = re.compile(r"blk\.(\d+)\.")


def choose_types(
    tensors: Sequence[tuple[str, tuple[int, ...]]], quantization: Quantization, traits: Traits
) -> dict[str, TensorType]:
    """The type of every tensor, given as (GGUF name, shape with the row's length last)."""
    float32 = TYPES_BY_NAME["F32"]
    types = {name: float32 for name, shape in tensors if stays_float32(name, shape)}
    others = [(name, shape) for name, shape in tensors if name not in types]
    if not quantization.is_mixture:
        return types | {name: quantization.default for name, _ in others}
    mixture = _Mixture(quantization, traits, [name for name, _ in tensors])
    for name, shape in sorted(others, key=lambda tensor: _order(tensor[0])):
        types[name] = fitting(mixture.next_type(name, shape[-1]), shape[-1])
    return types


def _order(name: str) -> tuple[int, bytes]:
    """llama.cpp goes through a model by layer, then by name; its counters depend on it."""
    layer = _LAYER.match(name)
    return (int(layer.group(1)) if layer else -1, name.encode())


def fitting(wanted: TensorType, row_length: int) -> TensorType:
    """``wanted``, or what llama.cpp takes instead where the rows are no whole blocks of it."""
    if row_length % wanted.block_size == 0:
        return wanted
    fallback = TYPES_BY_NAME[_FALLBACK.get(wanted.name, wanted.name)]
    return fallback if row_length % fallback.block_size == 0 else TYPES_BY_NAME["F16"]


class _Mixture:
    """Hands out types tensor by tensor, counting the layers of each role."""

    def __init__(self, quantization: Quantization, traits: Traits, names: Sequence[str]) -> None:
        self.quantization = quantization
        self.traits = traits
        roles = [role_of(name) for name in names]
        self.tied = Role.OUTPUT not in roles
        self.attn_v = _Place(0, roles.count(Role.ATTN_V), traits)
        self.ffn_down = _Place(0, traits.n_layers, traits)

    def next_type(self, name: str, row_length: int) -> TensorType:
        """The type before rows that do not fit are looked at."""
        role = role_of(name)
        chosen: str | None = None
        if role is Role.OUTPUT or (role is Role.EMBEDDING and self.tied):
            chosen = self._output(row_length)
        elif role is Role.EMBEDDING:
            chosen = "Q4_K" if self.quantization.name in ("TQ1_0", "TQ2_0") else None
        elif role is Role.ATTN_V:
            chosen = self._attn_v()
        elif role is Role.ATTN_K:
            chosen = "Q8_0" if self.traits.n_experts == 8 else None
        elif role is Role.ATTN_OUTPUT:
            chosen = self._attn_output()
        elif role is Role.FFN_DOWN:
            chosen = self._ffn_down(name)
        return TYPES_BY_NAME[chosen] if chosen else self.quantization.default

    @property
    def _is_falcon(self) -> bool:
        return self.traits.architecture == "falcon"

    def _output(self, row_length: int) -> str:
        default = self.quantization.default
        if self._is_falcon or row_length % default.block_size or default.name == "Q8_0":
            return "Q8_0"
        return "Q6_K"

    def _attn_v(self) -> str | None:
        place = self.attn_v
        choice = _ATTN_V.get(self.quantization.name)
        chosen = choice(place) if choice else None
        # Grouped queries make this matrix small in a 70B model, so more bits cost little.
        if self.traits.is_70b and (chosen or self.quantization.default.name) in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        if self.traits.n_experts == 8:
            chosen = "Q8_0"
        place.i += 1
        return chosen

    def _ffn_down(self, name: str) -> str | None:
        place = self.ffn_down
        if self.traits.n_experts > 1:
            # The matrices of experts do not come in the order of layers; the name tells it.
            layer = _LAYER.match(name)
            place = _Place(int(layer.group(1)) if layer else 0, place.n, self.traits)
        choice = _FFN_DOWN.get(self.quantization.name)
        if self._is_falcon:
            choice = _FALCON_FFN_DOWN.get(self.quantization.name, choice)
        chosen = choice(place) if choice else None
        self.ffn_down.i += 1
        return chosen

    def _attn_output(self) -> str | None:
        name = self.quantization.name
        if self._is_falcon:
            return _FALCON_ATTN_OUTPUT.get(name)
        if self.traits.n_experts == 8:
            return "Q5_K" if name in _EIGHT_EXPERTS_ATTN_OUTPUT else None
        return _ATTN_OUTPUT.get(name)
