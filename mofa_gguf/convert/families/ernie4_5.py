"""ERNIE 4.5, dense. llama.cpp: src/models/ernie4-5.cpp; both rotate neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import attention


@register("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")
class Ernie45(Decoder):
    """Like Llama, with heads of any size."""

    architecture = "ernie4_5"
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 128,
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 2,
        "rope_theta": 500_000.0,
    }
    default_epsilon = 1e-5
    tied_by_default = True
    fixed: ClassVar[Mapping[str, object]] = {"use_bias": False}
    rules = (*EMBEDDINGS, *TWO_NORMS, *attention(), *GATED_MLP, *OUTPUT)
