"""The quantizations by name: what ``convert`` and ``mofa-gguf convert -q`` take.

Numbers and default types: ``llama_ftype`` in llama.cpp's include/llama.h and
``llama_ftype_get_default_type`` in src/llama-quant.cpp. Some need an importance matrix
(IQ1, IQ2, IQ3_XXS, IQ3_XS, Q2_K_S; see choice.py).
"""

from __future__ import annotations

from typing import NamedTuple

from mofa_gguf.convert.errors import UnknownQuantization
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME, TensorType


class Quantization(NamedTuple):
    """A named recipe: most tensors get ``default``, some another type (see mixture.py)."""

    name: str
    file_type: int
    """general.file_type in the GGUF file."""
    default: TensorType

    @property
    def is_mixture(self) -> bool:
        """Whether the types are chosen per tensor; floats are the same everywhere."""
        return self.default.name not in ("F32", "F16", "BF16")


QUANTIZATIONS: dict[str, Quantization] = {
    name: Quantization(name, file_type, TYPES_BY_NAME[default])
    for name, file_type, default in (
        ("F32", 0, "F32"),
        ("F16", 1, "F16"),
        ("BF16", 32, "BF16"),
        ("Q8_0", 7, "Q8_0"),
        ("Q6_K", 18, "Q6_K"),
        ("Q5_K_M", 17, "Q5_K"),
        ("Q5_K_S", 16, "Q5_K"),
        ("Q5_1", 9, "Q5_1"),
        ("Q5_0", 8, "Q5_0"),
        ("Q4_K_M", 15, "Q4_K"),
        ("Q4_K_S", 14, "Q4_K"),
        ("Q4_1", 3, "Q4_1"),
        ("Q4_0", 2, "Q4_0"),
        ("IQ4_NL", 25, "IQ4_NL"),
        ("IQ4_XS", 30, "IQ4_XS"),
        ("Q3_K_L", 13, "Q3_K"),
        ("Q3_K_M", 12, "Q3_K"),
        ("Q3_K_S", 11, "Q3_K"),
        ("IQ3_M", 27, "IQ3_S"),
        ("IQ3_S", 26, "IQ3_S"),
        ("IQ3_XS", 22, "IQ3_S"),
        ("IQ3_XXS", 23, "IQ3_XXS"),
        ("Q2_K", 10, "Q2_K"),
        ("Q2_K_S", 21, "Q2_K"),
        ("IQ2_M", 29, "IQ2_S"),
        ("IQ2_S", 28, "IQ2_XS"),
        ("IQ2_XS", 20, "IQ2_XS"),
        ("IQ2_XXS", 19, "IQ2_XXS"),
        ("IQ1_M", 31, "IQ1_M"),
        ("IQ1_S", 24, "IQ1_S"),
        ("TQ2_0", 37, "TQ2_0"),
        ("TQ1_0", 36, "TQ1_0"),
        ("MXFP4_MOE", 38, "MXFP4"),
        ("Q2_0", 41, "Q2_0"),
        ("Q1_0", 40, "Q1_0"),
    )
}

COPY = Quantization("COPY", -1, TYPES_BY_NAME["F32"])
"""Every tensor as it is: for ``quantize`` only, to divide a file or to join a set's parts."""

# llama.cpp's quantize tool takes these short names too.
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32"}


def quantization_named(name: str) -> Quantization:
    """The quantization called ``name``, in upper or lower case.

    Raises UnknownQuantization, which lists the known ones.
    """
    upper = name.strip().upper()
    found = QUANTIZATIONS.get(_ALIASES.get(upper, upper))
    if found is None:
        raise UnknownQuantization(name, list(QUANTIZATIONS))
    return found
