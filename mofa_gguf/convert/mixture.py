"""Which tensor gets which type in a mixture: llama.cpp's rules, as tables.

Behaviour: ``llama_tensor_get_type_impl`` in src/llama-quant.cpp of llama.cpp. Tests compare with
the files that ``llama_model_quantize`` writes. choice.py asks, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mofa_gguf.convert.families.base import Traits
from mofa_gguf.convert.quantizations import Quantization
from mofa_gguf.convert.roles import Role, layer_of, role_of
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME, TensorType


class _Place(NamedTuple):
    """Where in the model the next tensor of a role is."""

    i: int
    n: int
    traits: Traits
    has_importance: bool = False

    @property
    def shares_values(self) -> bool:
        """Few key-value heads: their matrices are small."""
        return self.traits.n_gqa >= 4

    @property
    def in_middle(self) -> bool:
        """Neither the first nor the last eighth of the layers."""
        return self.n // 8 <= self.i < 7 * self.n // 8

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


_shared_values = _when(lambda place: place.shares_values, "Q4_K")
_more_bits = _when(lambda place: place.wants_more_bits, "Q6_K")
_not_below_q5 = _when(lambda place: place.in_first_eighth and not place.has_importance, "Q5_K")

# Fewer than three bits: these have rules of their own, which take more bits for the same tensors.
# The columns: value matrices that many queries share, others, the first ffn_down, attn_output.
_LOW_BITS: Mapping[str, tuple[str, str, str, str | None]] = {
    "IQ1_S": ("Q4_K", "Q2_K", "Q2_K", "IQ2_XXS"),
    "IQ1_M": ("Q4_K", "Q2_K", "Q2_K", "IQ2_XXS"),
    "IQ2_XXS": ("Q4_K", "Q2_K", "Q2_K", None),
    "IQ2_XS": ("Q4_K", "Q2_K", "Q2_K", None),
    "IQ2_S": ("Q4_K", "IQ3_S", "IQ3_S", "IQ3_S"),
    "IQ2_M": ("Q4_K", "IQ3_S", "IQ3_S", "IQ3_S"),
}

_EMBEDDING: Mapping[str, str] = {
    "IQ1_S": "Q2_K",
    "IQ1_M": "Q2_K",
    "IQ2_XXS": "Q2_K",
    "IQ2_XS": "Q2_K",
    "IQ2_S": "IQ3_S",
    "IQ2_M": "IQ3_S",
    "IQ3_XXS": "IQ3_S",
    "TQ1_0": "Q4_K",
    "TQ2_0": "Q4_K",
    "Q2_0": "Q4_K",
}

_ATTN_V: Mapping[str, Choice] = {
    "Q2_K": lambda place: _shared_values(place) or "Q3_K",
    "Q3_K_M": lambda place: "Q5_K" if place.i < 2 else "Q4_K",
    "Q3_K_L": _always("Q5_K"),
    "Q2_K_S": _shared_values,
    "IQ3_XXS": lambda place: (
        _shared_values(place) or ("IQ3_XXS" if place.has_importance else "IQ3_S")
    ),
    "IQ3_XS": _shared_values,
    "IQ3_S": _shared_values,
    "IQ3_M": _always("Q4_K"),
    "IQ4_NL": _when(lambda place: place.shares_values, "Q5_K"),
    "IQ4_XS": _when(lambda place: place.shares_values, "Q5_K"),
    "Q4_K_S": _when(lambda place: place.i < 4, "Q5_K"),
    "Q4_K_M": _more_bits,
    "Q5_K_M": _more_bits,
}

_ATTN_Q_AND_K: Mapping[str, str] = {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}

_FFN_UP_AND_GATE: Mapping[str, Choice] = {
    "IQ3_XS": _when(lambda place: place.in_middle, "IQ3_XXS"),
}

_FFN_DOWN: Mapping[str, Choice] = {
    "Q2_K": _always("Q3_K"),
    "Q2_K_S": _when(lambda place: place.in_first_eighth, "Q4_K"),
    "IQ3_XXS": lambda place: (
        None if place.has_importance else "Q4_K" if place.in_first_eighth else "Q3_K"
    ),
    # With an importance matrix these two go astray in the first layers.
    "Q4_0": _when(lambda place: place.in_first_eighth and place.has_importance, "Q4_1"),
    "Q5_0": _when(lambda place: place.in_first_eighth and place.has_importance, "Q5_1"),
    "Q3_K_M": lambda place: "Q5_K" if place.i < place.n // 16 else "Q4_K",
    "Q3_K_L": _always("Q5_K"),
    "IQ3_M": _when(
        lambda place: (
            place.in_first_eighth or (place.traits.n_experts == 8 and place.wants_more_bits)
        ),
        "Q4_K",
    ),
    "IQ4_NL": _not_below_q5,
    "IQ4_XS": _not_below_q5,
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
    "IQ3_XXS": "IQ3_S",
    "IQ3_M": "Q4_K",
}
# Of GLM 5 these are never made smaller.
_GLM5_PARTS = ("attn_q_a", "attn_q_b", "nextn.eh_proj")
_FALCON_ATTN_OUTPUT: Mapping[str, str] = {"Q3_K_L": "Q4_K"}
_EIGHT_EXPERTS_ATTN_OUTPUT = frozenset(
    (
        *("Q2_K", "Q3_K_S", "Q3_K_M", "Q4_K_S", "Q4_K_M"),
        *("IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_NL", "IQ4_XS"),
    )
)


class Mixture:
    """Hands out types tensor by tensor, in that order, counting the layers of each role.

    ``names`` are those of all the model's tensors.
    """

    def __init__(
        self,
        quantization: Quantization,
        traits: Traits,
        names: Sequence[str],
        *,
        output: TensorType | None = None,
        has_importance: bool = False,
    ) -> None:
        self.quantization = quantization
        self.traits = traits
        self.output = output
        roles = [role_of(name) for name in names]
        self.tied = Role.OUTPUT not in roles
        self.places = {
            role: _Place(0, traits.n_layers, traits, has_importance)
            for role in (Role.FFN_DOWN, Role.FFN_UP, Role.FFN_GATE)
        }
        self.places[Role.ATTN_V] = _Place(0, roles.count(Role.ATTN_V), traits, has_importance)

    def next_type(self, name: str, shape: Sequence[int]) -> TensorType:
        """The type before rows that do not fit are looked at; ``shape`` has the row last."""
        role = role_of(name)
        if self.traits.architecture == "glm5-next" and any(p in name for p in _GLM5_PARTS):
            return TYPES_BY_NAME["Q8_0"]
        if role is Role.OUTPUT or (role is Role.EMBEDDING and self.tied):
            return self.output or TYPES_BY_NAME[self._output(shape[-1])]
        if self.quantization.name == "MXFP4_MOE":
            return TYPES_BY_NAME["MXFP4" if self._is_stack(role, shape) else "Q8_0"]
        chosen = self._chosen(role, name)
        if role in self.places:
            self.places[role] = self.places[role]._replace(i=self.places[role].i + 1)
        return TYPES_BY_NAME[chosen] if chosen else self.quantization.default

    def _chosen(self, role: Role, name: str) -> str | None:
        quantization = self.quantization.name
        if role is Role.EMBEDDING:
            return _EMBEDDING.get(quantization)
        if quantization in _LOW_BITS:
            return self._low_bits(role, *_LOW_BITS[quantization])
        if role is Role.ATTN_V:
            return self._attn_v()
        if role is Role.ATTN_K and self.traits.n_experts == 8:
            return "Q8_0"
        if role in (Role.ATTN_K, Role.ATTN_Q):
            return _ATTN_Q_AND_K.get(quantization)
        if role is Role.ATTN_OUTPUT:
            return self._attn_output()
        if role in (Role.FFN_DOWN, Role.FFN_UP, Role.FFN_GATE):
            return self._ffn(role, name)
        return None

    @property
    def _is_falcon(self) -> bool:
        return self.traits.architecture == "falcon"

    def _output(self, row_length: int) -> str:
        default, name = self.quantization.default, self.quantization.name
        if name == "MXFP4_MOE" or self._is_falcon or row_length % default.block_size:
            return "Q8_0"
        if name in _LOW_BITS or name == "IQ3_XXS":
            return "Q5_K"
        return "Q8_0" if default.name == "Q8_0" else "Q6_K"

    def _is_stack(self, role: Role, shape: Sequence[int]) -> bool:
        """Whether it is a stack of experts' matrices (and not one of Bailing's attention)."""
        if len(shape) < 3 or shape[-3] < 2:
            return False
        experts = (Role.FFN_UP, Role.FFN_GATE, Role.FFN_DOWN)
        return self.traits.architecture != "bailingmoe3" or role in experts

    def _low_bits(
        self, role: Role, shared: str, values: str, first_down: str, attn_output: str | None
    ) -> str | None:
        traits = self.traits
        if role is Role.ATTN_V:
            return shared if traits.n_gqa >= 4 or traits.n_experts >= 4 else values
        if role is Role.ATTN_K:
            return "Q4_K" if traits.n_experts == 8 else None
        if role is Role.FFN_DOWN:
            # Counted, not read from the name, also where there are experts.
            return first_down if self.places[role].in_first_eighth else None
        if role is Role.ATTN_OUTPUT:
            return "Q5_K" if traits.n_experts == 8 else attn_output
        return None

    def _attn_v(self) -> str | None:
        choice = _ATTN_V.get(self.quantization.name)
        chosen = choice(self.places[Role.ATTN_V]) if choice else None
        # Grouped queries make this matrix small in a 70B model, so more bits cost little.
        if self.traits.is_70b and (chosen or self.quantization.default.name) in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        if self.traits.n_experts == 8:
            chosen = "Q8_0"
        return chosen

    def _ffn(self, role: Role, name: str) -> str | None:
        place = self.places[role]
        if self.traits.n_experts > 1:
            # The matrices of experts do not come in the order of layers; the name tells it.
            place = place._replace(i=layer_of(name) or 0)
        table = _FFN_DOWN if role is Role.FFN_DOWN else _FFN_UP_AND_GATE
        choice = table.get(self.quantization.name)
        if self._is_falcon and role is Role.FFN_DOWN:
            choice = _FALCON_FFN_DOWN.get(self.quantization.name, choice)
        return choice(place) if choice else None

    def _attn_output(self) -> str | None:
        name = self.quantization.name
        if self._is_falcon:
            return _FALCON_ATTN_OUTPUT.get(name)
        if self.traits.n_experts == 8:
            return "Q5_K" if name in _EIGHT_EXPERTS_ATTN_OUTPUT else None
        return _ATTN_OUTPUT.get(name)
