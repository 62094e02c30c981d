"""The type of every tensor of a file: what may be quantized, what was asked for, what fits.

Behaviour: src/llama-quant.cpp in llama.cpp (``tensor_allows_quantization``,
``llama_tensor_get_type``, ``tensor_type_fallback``, ``tensor_requires_imatrix``). The mixtures' own
rules are in mixture.py. Tests compare with the files that ``llama_model_quantize`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mofa_gguf.convert.errors import OverrideError, TypeChoiceError
from mofa_gguf.convert.families.base import Traits
from mofa_gguf.convert.mixture import Mixture
from mofa_gguf.convert.overrides import NO_OVERRIDES, Overrides
from mofa_gguf.convert.quantizations import Quantization
from mofa_gguf.convert.roles import TOKEN_EMBEDDINGS, Role, in_order, role_of
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME, TensorType
from mofa_gguf.engine.quantize import needs_importance

# Parts of the names of matrices that are never quantized: norms, routing, small tables,
# convolutions, recurrent parameters, positions, and parts of image and audio encoders.
_KEPT_PARTS = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight",
    "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight",
    "indexer.k_proj.weight", "indexer.q_proj.weight",
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
    "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight",
    "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
    "time_mix_g1.weight", "time_mix_g2.weight",
    "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos",
    ".patch_embd", ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_KEPT_NAMES = frozenset(("position_embd.weight", "token_types.weight"))
_KEPT_OF: Mapping[str, tuple[str, ...]] = {
    "glm5-next": (
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight",
        "ssm_g_b.weight", "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight",
        "attn_v_b.weight",
    ),
}  # fmt: skip

# What stands in where rows are no whole blocks; smaller blocks have no stand-in but F16.
_FALLBACK: Mapping[str, str] = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S"), "IQ4_NL"),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
_SMALL_BLOCK = 32

# Types that come out as garbage without an importance matrix; Q2_K only as part of a Q2_K_S file.
_GARBAGE_ALONE = frozenset(("IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"))


def is_quantizable(name: str, shape: Sequence[int], architecture: str = "") -> bool:
    """Whether llama.cpp's quantizer touches a tensor; ``shape`` has the row's length last."""
    n_dimensions = len(shape)
    leading = next((i for i, size in enumerate(shape) if size != 1), n_dimensions - 1)
    kept = (*_KEPT_PARTS, *_KEPT_OF.get(architecture, ()))
    return (
        n_dimensions - leading >= 2
        and name.endswith("weight")
        and name not in _KEPT_NAMES
        and not any(part in name for part in kept)
    )


def choose_types(
    tensors: Sequence[tuple[str, tuple[int, ...]]],
    quantization: Quantization,
    traits: Traits,
    overrides: Overrides = NO_OVERRIDES,
    *,
    has_importance: bool = False,
) -> dict[str, TensorType]:
    """The types of the tensors that are quantized, given as (GGUF name, shape with the row last).

    Those that are not in the answer stay as they are. Raises OverrideError where patterns or
    ``pure`` are given with a quantization that has nothing to choose, and TypeChoiceError where
    rows are no whole blocks of a type and none stands in for it.
    """
    if not quantization.is_mixture and (overrides.patterns or overrides.pure):
        option = "--tensor-type" if overrides.patterns else "--pure"
        problem = f"{quantization.name} has one type for all tensors; choose a quantized one"
        raise OverrideError(option, problem)
    chooser = _Chooser(
        quantization,
        overrides,
        Mixture(
            quantization,
            traits,
            [name for name, _ in tensors],
            output=overrides.output,
            has_importance=has_importance,
        ),
    )
    return {
        name: chooser.type_of(name, shape)
        for name, shape in sorted(tensors, key=lambda tensor: in_order(tensor[0]))
        if is_quantizable(name, shape, traits.architecture)
    }


class _Chooser:
    """What was asked for, then the mixture, then what fits."""

    def __init__(self, quantization: Quantization, overrides: Overrides, mixture: Mixture) -> None:
        self._quantization = quantization
        self._overrides = overrides
        self._mixture = mixture

    def type_of(self, name: str, shape: Sequence[int]) -> TensorType:
        demanded = self._demanded(name)
        if demanded is not None:
            if shape[-1] % demanded.block_size:
                raise no_whole_blocks(name, demanded, shape[-1])
            return demanded
        if not self._quantization.is_mixture:
            return self._quantization.default
        wanted = self._overrides.for_name(name)
        if wanted is None:
            pure = self._overrides.pure
            default = self._quantization.default
            wanted = default if pure else self._mixture.next_type(name, shape)
        found = fitting(wanted, shape[-1])
        if found is None:
            raise no_whole_blocks(name, wanted, shape[-1])
        return found

    def _demanded(self, name: str) -> TensorType | None:
        """The type for embeddings or output, which nothing stands in for."""
        role = role_of(name)
        if role is Role.OUTPUT:
            return self._overrides.output
        if role is Role.EMBEDDING:
            # Gemma's table for each layer may be named by a pattern instead.
            by_pattern = name != "token_embd.weight" and self._overrides.for_name(name)
            return None if by_pattern else self._overrides.embedding
        return None


def fitting(wanted: TensorType, row_length: int) -> TensorType | None:
    """``wanted``, or what llama.cpp takes instead where rows are no whole blocks of it.

    None where it takes nothing.
    """
    if row_length % wanted.block_size == 0:
        return wanted
    if wanted.block_size > _SMALL_BLOCK and wanted.name not in _FALLBACK:
        return None
    fallback = TYPES_BY_NAME[_FALLBACK.get(wanted.name, wanted.name)]
    return fallback if row_length % fallback.block_size == 0 else TYPES_BY_NAME["F16"]


def no_whole_blocks(name: str, kind: TensorType, row_length: int) -> TypeChoiceError:
    """The error for rows that cannot be cut into a type's blocks."""
    return TypeChoiceError(
        name,
        kind.name,
        f"its rows have {row_length} elements, no whole blocks of {kind.block_size}; "
        "choose another type for it",
    )


def wants_importance(name: str, target: TensorType, quantization: Quantization) -> bool:
    """Whether a tensor may become ``target`` only with weights from an importance matrix."""
    if needs_importance(target):
        return True
    if name in TOKEN_EMBEDDINGS or role_of(name) is Role.OUTPUT:
        return False
    return target.name in _GARBAGE_ALONE or (
        target.name == "Q2_K" and quantization.name == "Q2_K_S"
    )
