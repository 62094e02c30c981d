"""What decoder-only families share: sizes, common keys, tied embeddings, rotary positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from mofa_gguf.convert.families.base import (
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Dimensions,
    Family,
    NamedWeights,
    Rule,
    Traits,
    Transform,
)
from mofa_gguf.convert.families.rope import Rope, read_rope
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Weights, computed, reordered, same_data

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

# Rules that recur. Dimensions: q and kv are heads times head_dim.
EMBEDDINGS = (Rule(EMBEDDING, "token_embd.weight", ("vocab", "embd")),)
GATED_MLP = (
    Rule("model.layers.{i}.mlp.gate_proj.weight", "blk.{i}.ffn_gate.weight", ("ff", "embd")),
    Rule("model.layers.{i}.mlp.up_proj.weight", "blk.{i}.ffn_up.weight", ("ff", "embd")),
    Rule("model.layers.{i}.mlp.down_proj.weight", "blk.{i}.ffn_down.weight", ("embd", "ff")),
)
TWO_NORMS = (
    Rule("model.layers.{i}.input_layernorm.weight", "blk.{i}.attn_norm.weight", ("embd",)),
    Rule("model.layers.{i}.post_attention_layernorm.weight", "blk.{i}.ffn_norm.weight", ("embd",)),
)
OUTPUT = (
    Rule("model.norm.weight", "output_norm.weight", ("embd",)),
    Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
)


def paired_rotation(heads: str) -> Transform:
    """Row order for llama.cpp's rope of kind NORM, which rotates neighbours.

    transformers' Llama rotates row ``j`` of a head together with row ``j + head_dim/2``;
    llama.cpp expects the two beside each other. ``heads`` names the dimension that counts heads.
    """

    def transform(weights: Weights, dimensions: Dimensions) -> Weights:
        n_rows = weights.shape[0]
        order = np.arange(n_rows).reshape(dimensions[heads], 2, -1).swapaxes(1, 2).reshape(n_rows)
        return reordered(weights, order)

    return transform


class Decoder(Family):
    """A decoder with rotary positions, RMS norms and grouped-query attention."""

    activations: ClassVar[tuple[str, ...]] = ("silu", "swish")
    """What hidden_act may be; llama.cpp has the activation built in."""
    tied_by_default: ClassVar[bool] = False
    takes_frequency_factors: ClassVar[bool] = False
    """Whether llama.cpp's loader of this architecture knows the tensor rope_freqs."""
    skip: ClassVar[Mapping[str, str]] = {
        "model.layers.*.self_attn.rotary_emb.inv_freq": "llama.cpp computes the frequencies",
        "model.rotary_emb.inv_freq": "llama.cpp computes the frequencies",
    }

    def dimensions(self) -> Dimensions:
        """Sizes, checked against one another as far as config.json allows."""
        config = self.config
        embd = config.integer("hidden_size", maximum=MAX_WIDTH)
        heads = config.integer("num_attention_heads", maximum=MAX_WIDTH)
        kv_heads = config.integer("num_key_value_heads", default=heads, maximum=heads)
        if heads % kv_heads:
            raise config.fail("num_attention_heads", f"must be a multiple of {kv_heads}")
        if "head_dim" not in config and embd % heads:
            raise config.fail("hidden_size", f"must be a multiple of {heads}, the number of heads")
        head_dim = config.integer("head_dim", default=embd // heads, maximum=MAX_WIDTH)
        if head_dim % 2:
            raise config.fail("head_dim", f"must be even, not {head_dim}")
        return {
            "vocab": config.integer("vocab_size", maximum=MAX_VOCABULARY),
            "layers": config.integer("num_hidden_layers", maximum=MAX_LAYERS),
            "embd": embd,
            "ff": config.integer("intermediate_size", maximum=MAX_WIDTH),
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "q": heads * head_dim,
            "kv": kv_heads * head_dim,
        }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys that every decoder's loader asks for."""
        activation = self.config.string("hidden_act", default=self.activations[0])
        if activation not in self.activations:
            raise self.config.fail(
                "hidden_act", f"must be {self.activations[0]} for llama.cpp, not {activation!r}"
            )
        metadata.uint32(self.key("block_count"), dimensions["layers"])
        metadata.uint32(self.key("context_length"), self.n_context)
        metadata.uint32(self.key("embedding_length"), dimensions["embd"])
        metadata.uint32(self.key("feed_forward_length"), dimensions["ff"])
        metadata.uint32(self.key("attention.head_count"), dimensions["heads"])
        metadata.uint32(self.key("attention.head_count_kv"), dimensions["kv_heads"])
        epsilon = self.config.number("rms_norm_eps", default=1e-6, minimum=0)
        metadata.float32(self.key("attention.layer_norm_rms_epsilon"), epsilon)
        if "head_dim" in self.config:
            metadata.uint32(self.key("attention.key_length"), dimensions["head_dim"])
            metadata.uint32(self.key("attention.value_length"), dimensions["head_dim"])
        self.warnings += self.rope.write(metadata, self.architecture)

    @property
    def n_context(self) -> int:
        """Tokens that the model was trained for."""
        return self.config.integer("max_position_embeddings", default=2048)

    @property
    def rope(self) -> Rope:
        """The rotary settings."""
        return read_rope(self.config, self.n_context)

    def traits(self, dimensions: Dimensions) -> Traits:
        """What the choice of tensor types depends on."""
        return Traits(
            self.architecture,
            dimensions["layers"],
            n_gqa=dimensions["heads"] // dimensions["kv_heads"],
            is_70b=self.is_70b(dimensions),
        )

    def is_70b(self, dimensions: Dimensions) -> bool:
        """Whether llama.cpp takes the model for LLM_TYPE_70B (src/models, load_arch_hparams)."""
        return False

    def extra_tensors(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """Factors of the rotary frequencies, where the settings need them."""
        factors = self.rope.frequency_factors(dimensions["head_dim"])
        if factors is not None:
            if not self.takes_frequency_factors:
                raise self.config.fail(
                    "rope_parameters",
                    f"ask for a {self.rope.kind} scaling that llama.cpp does not know for "
                    f"{self.architecture}",
                )
            yield NamedWeights("rope_freqs.weight", computed(factors))

    def _mapped(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """As the rules say, but an output matrix that equals the embeddings is left out."""
        tied = self.config.boolean("tie_word_embeddings", default=self.tied_by_default)
        if not tied:
            self._demand_head()
        for tensor in super()._mapped(dimensions):
            if tied and tensor.weights.sources == (HEAD,) and self._head_repeats_embedding():
                self.skipped[HEAD] = "tied: the same as the token embeddings"
            else:
                yield tensor

    def _demand_head(self) -> None:
        if HEAD not in self.checkpoint.tensors:
            raise self.config.fail(
                "tie_word_embeddings", f"is not true, but the checkpoint has no {HEAD}"
            )

    def _head_repeats_embedding(self) -> bool:
        # transformers ties only equal matrices; different ones are both used.
        same = same_data(self.checkpoint, HEAD, EMBEDDING)
        if not same:
            self.warnings.append(
                f"tie_word_embeddings is true, but {HEAD} differs from the embeddings; "
                "both were kept, as transformers does"
            )
        return same
