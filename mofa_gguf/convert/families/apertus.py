"""Apertus. llama.cpp: src/models/apertus.cpp; xIELU's two trained numbers a layer are metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, norm
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import to_float32

_ACTIVATION = f"{LAYER}.mlp.act_fn"
# What transformers starts from; published checkpoints hold all four.
_NUMBERS: Mapping[str, float | None] = {"alpha_n": None, "alpha_p": None, "beta": 0.5, "eps": -1e-6}


@register("ApertusForCausalLM")
class Apertus(Decoder):
    """Llama with norms of queries and keys, and no gate in its feed-forward part."""

    architecture = "apertus"
    activations = ("xielu",)
    default_epsilon = 1e-5
    takes_frequency_factors = takes_longrope = demands_head = True
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 65_536,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
        "rope_theta": 12_000_000.0,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        "attention_bias": False,
        "mlp_bias": False,
        "post_norm": False,
        "qk_norm": True,
    }
    skip: ClassVar[Mapping[str, str]] = {
        **Decoder.skip,
        "model.layers.*.mlp.act_fn.*": "a number, which is kept in the metadata",
    }
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.attention_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
        *norm(f"{LAYER}.feedforward_layernorm", "blk.{i}.ffn_norm"),
        matrix(f"{LAYER}.mlp.up_proj", "blk.{i}.ffn_up", "ff", "embd"),
        matrix(f"{LAYER}.mlp.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and the activations' numbers."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])
        for name, default in _NUMBERS.items():
            values = [self._number(name, i, default) for i in range(dimensions["layers"])]
            metadata.float32s(f"xielu.{name}", values)

    def _number(self, name: str, layer: int, default: float | None) -> float:
        tensors = {self.canonical(stored): stored for stored in self.checkpoint.tensors}
        wanted = f"{_ACTIVATION}.{name}".format(i=layer)
        if wanted not in tensors:
            if default is None:
                raise BadTensor(self.checkpoint.folder, wanted, "is missing")
            return default
        stored = tensors[wanted]
        values = self.checkpoint.array(stored).reshape(-1)
        if len(values) != 1:
            raise BadTensor(self.checkpoint.file_of(stored), stored, "must be one number")
        return float(to_float32(values, self.checkpoint.tensors[stored].dtype)[0])
