"""Falcon-H1: attention and state spaces side by side in each layer. llama.cpp: falcon-h1.cpp.

Many factors of the configuration scale what goes into and comes out of the parts; llama.cpp has
none of them, so they are multiplied into the matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, NamedWeights, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, HEAD
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, norm
from mofa_gguf.convert.families.state_spaces import StateSpaces, mixer
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import multiplied, stored

_MLP = f"{LAYER}.feed_forward"


@register("FalconH1ForCausalLM")
class FalconH1(StateSpaces):
    """A small model's inputs go to both parts, whose outputs are added up."""

    architecture = "falcon-h1"
    default_epsilon = 1e-5
    defaults: ClassVar[Mapping[str, object]] = {
        "mamba_d_head": "auto",
        "mamba_d_ssm": 1024,
        "mamba_d_state": 256,
        "mamba_n_groups": 1,
        "mamba_n_heads": 128,
        "max_position_embeddings": 8192,
        "num_key_value_heads": 8,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        **StateSpaces.fixed,
        "attention_bias": False,
        "mlp_bias": False,
        "projectors_bias": False,
    }
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *mixer(f"{LAYER}.mamba", flag="mamba_rms_norm"),
        # Without an ending: so llama.cpp asks for it.
        Rule(f"{LAYER}.pre_ff_layernorm.weight", "blk.{i}.ffn_norm", ("embd",)),
        matrix(f"{_MLP}.gate_proj", "blk.{i}.ffn_gate", "ff", "embd"),
        matrix(f"{_MLP}.up_proj", "blk.{i}.ffn_up", "ff", "embd"),
        matrix(f"{_MLP}.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *norm("model.final_layernorm", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def dimensions(self) -> Dimensions:
        """The decoder's, and those of the state spaces."""
        sizes = super().dimensions()
        mixed = self.mixer_dimensions(sizes["embd"])
        if self.config.integer("mamba_d_ssm") != mixed["inner"]:
            raise self.config.fail("mamba_d_ssm", f"must be {mixed['inner']}, as the heads are")
        return {**sizes, **mixed}

    def mixer_dimensions(self, embd: int) -> Dimensions:
        """A head's size comes from the width of the state spaces."""
        if self.config.values.get("mamba_d_head") == "auto":
            width = self.config.integer("mamba_d_ssm")
            heads = self.config.integer("mamba_n_heads")
            self.config.values = {**self.config.values, "mamba_d_head": width // heads}
        return super().mixer_dimensions(embd)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of both parts."""
        super().hyperparameters(metadata, dimensions)
        self.write_mixer(metadata, dimensions)
        # llama.cpp would take the width by heads.
        metadata.uint32(self.key("attention.key_length"), dimensions["head_dim"])
        metadata.uint32(self.key("attention.value_length"), dimensions["head_dim"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])
        before = self.config.boolean("mamba_norm_before_gate", default=True)
        if self.config.boolean("mamba_rms_norm", default=False) and before:
            raise self.config.fail("mamba_norm_before_gate", "must be false for llama.cpp")

    def _factor(self, name: str) -> float:
        return self.config.number(name, default=1.0)

    def _factors(self, dimensions: Dimensions) -> dict[str, npt.NDArray[np.float32]]:
        """By the end of a tensor's name: one factor, or one for each row."""
        gate, down = self._list("mlp_multipliers", 2)
        into_attention = self._factor("attention_in_multiplier")
        states = dimensions["groups"] * dimensions["state"]
        sizes = [dimensions["inner"]] * 2 + [states] * 2 + [dimensions["mixer_heads"]]
        rows = np.repeat(self._list("ssm_multipliers", 5), sizes)
        single = {
            "token_embd.weight": self._factor("embedding_multiplier"),
            "output.weight": self._factor("lm_head_multiplier"),
            "attn_q.weight": into_attention,
            "attn_k.weight": into_attention * self._factor("key_multiplier"),
            "attn_v.weight": into_attention,
            "attn_output.weight": self._factor("attention_out_multiplier"),
            "ssm_out.weight": self._factor("ssm_out_multiplier"),
            "ffn_gate.weight": gate,
            "ffn_down.weight": down,
        }
        factors = {name: np.array([value], np.float32) for name, value in single.items()}
        factors["ssm_in.weight"] = (rows * self._factor("ssm_in_multiplier")).astype(np.float32)
        return factors

    def _list(self, name: str, length: int) -> list[float]:
        if name not in self.config:
            return [1.0] * length
        return self.config.numbers(name, length=length)

    def _mapped(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """Scaled; an output matrix of its own, since embeddings have another factor."""
        factors = self._factors(dimensions)
        names = {self.canonical(name): name for name in self.checkpoint.tensors}
        tensors = list(super()._mapped(dimensions))
        if HEAD not in names:
            embedding = stored(self.checkpoint, names[self.embedding])
            tensors.append(NamedWeights("output.weight", embedding))
        for tensor in tensors:
            end = tensor.name if tensor.name in factors else tensor.name.partition(".")[2]
            end = end.partition(".")[2] if tensor.name.startswith("blk.") else end
            factor = factors.get(end)
            if factor is None or (factor == 1.0).all():
                yield tensor
            else:
                yield NamedWeights(tensor.name, multiplied(tensor.weights, factor))

    def _is_superfluous(self, head: str, embedding: str, *, tied: bool) -> bool:
        """Never, because of the factors."""
        return False
