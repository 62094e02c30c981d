"""What decoder-only families share: sizes, common keys, tied embeddings, rotary positions.

A family says in class variables how it differs; only what no variable can say is code.
"""

from __future__ import annotations

import json
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
from mofa_gguf.convert.families.sentence_transformers import (
    SentenceTransformer,
    read_sentence_transformer,
)
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Weights, computed, reordered, same_data, stored

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
    activation_names: ClassVar[tuple[str, ...]] = ("hidden_act",)
    """Under which names config.json may keep it; the first counts."""
    fixed: ClassVar[Mapping[str, object]] = {}
    """Values of config.json that llama.cpp computes with, whatever is there."""
    centred_norms: ClassVar[bool] = False
    """Whether the norms subtract the mean."""
    epsilon_names: ClassVar[tuple[str, ...]] = ("rms_norm_eps",)
    default_epsilon: ClassVar[float] = 1e-6
    rotary: ClassVar[bool] = True
    """Whether positions are rotations."""
    partly_rotated: ClassVar[bool] = False
    """Whether a part of each head may be left unrotated."""
    head_dim_is_width_by_heads: ClassVar[bool] = False
    """Whether llama.cpp takes the size of a head from the width, whatever config.json says."""
    shares_keys: ClassVar[bool] = True
    """Whether there may be fewer heads of keys and values than of queries."""
    inner_widths: ClassVar[int] = 0
    """How many times as wide as the model the feed-forward is, where config.json leaves it out."""
    embedding: ClassVar[str] = EMBEDDING
    head: ClassVar[str] = HEAD
    demands_head: ClassVar[bool] = False
    """Whether llama.cpp asks for an output matrix even where it repeats the embeddings."""
    always_tied: ClassVar[bool] = False
    """Whether llama.cpp takes the embeddings as the output matrix in any case."""
    tied_by_default: ClassVar[bool] = False
    takes_dense: ClassVar[bool] = False
    """Whether llama.cpp can multiply the architecture's vectors by further matrices."""
    takes_longrope: ClassVar[bool] = False
    """Whether llama.cpp's loader of this architecture knows the tensors of LongRoPE."""
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
        kv_heads = self.n_kv_heads(heads)
        if heads % kv_heads:
            raise config.fail("num_attention_heads", f"must be a multiple of {kv_heads}")
        if "head_dim" not in config and embd % heads:
            raise config.fail("hidden_size", f"must be a multiple of {heads}, the number of heads")
        head_dim = config.integer("head_dim", default=embd // heads, maximum=MAX_WIDTH)
        if head_dim % 2:
            raise config.fail("head_dim", f"must be even, not {head_dim}")
        if self.head_dim_is_width_by_heads and heads * head_dim != embd:
            raise config.fail(
                "head_dim", "times the number of heads must be hidden_size for llama.cpp"
            )
        return {
            "vocab": config.integer("vocab_size", maximum=MAX_VOCABULARY),
            "layers": config.integer("num_hidden_layers", maximum=MAX_LAYERS),
            "embd": embd,
            "ff": self.inner_width(embd),
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
            "rotated": self._n_rotated(head_dim),
            "q": heads * head_dim,
            "kv": kv_heads * head_dim,
        }

    def inner_width(self, embd: int) -> int:
        """Width of the feed-forward part; 0 where no layer has one."""
        default = self.inner_widths * embd or None
        return self.config.integer("intermediate_size", default=default, maximum=MAX_WIDTH)

    def n_kv_heads(self, heads: int) -> int:
        """Heads of keys and values for so many of queries."""
        if not self.shares_keys:
            return heads
        return self.config.integer("num_key_value_heads", default=heads, maximum=heads)

    def _n_rotated(self, head_dim: int) -> int:
        """Rows of a head that are rotated."""
        if not self.rotary:
            return 0
        part = self.rope.rotated_part
        if part == 1.0:
            return head_dim
        rotated = int(head_dim * part)
        if not self.partly_rotated or rotated < 2 or rotated % 2:
            kind = f"leave an even part of {head_dim}" if self.partly_rotated else "be 1"
            raise self.config.fail(
                "partial_rotary_factor", f"must {kind} for this architecture, not {part:g}"
            )
        return rotated

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys that every decoder's loader asks for."""
        self._check_fixed()
        metadata.uint32(self.key("block_count"), dimensions["layers"])
        metadata.uint32(self.key("context_length"), self.n_context)
        metadata.uint32(self.key("embedding_length"), dimensions["embd"])
        if dimensions["ff"]:
            metadata.uint32(self.key("feed_forward_length"), dimensions["ff"])
        metadata.uint32(self.key("attention.head_count"), dimensions["heads"])
        metadata.uint32(self.key("attention.head_count_kv"), dimensions["kv_heads"])
        epsilon = self.config.number(*self.epsilon_names, default=self.default_epsilon, minimum=0)
        kind = "layer_norm_epsilon" if self.centred_norms else "layer_norm_rms_epsilon"
        metadata.float32(self.key(f"attention.{kind}"), epsilon)
        if "head_dim" in self.config:
            metadata.uint32(self.key("attention.key_length"), dimensions["head_dim"])
            metadata.uint32(self.key("attention.value_length"), dimensions["head_dim"])
        self._embedding.write(metadata, self.architecture)
        if self.rotary:
            self.warnings += self.rope.write(metadata, self.architecture)
            if self.partly_rotated:
                metadata.uint32(self.key("rope.dimension_count"), dimensions["rotated"])

    def _check_fixed(self) -> None:
        """Raises CheckpointError where llama.cpp would compute something else."""
        activation = self.config.string(*self.activation_names, default=self.activations[0])
        if activation not in self.activations:
            raise self.config.fail(
                self.activation_names[0],
                f"must be {self.activations[0]} for llama.cpp, not {activation!r:.60}",
            )
        for name, value in self.fixed.items():
            found = self.config.values.get(name)
            # To Python a null is as good as false.
            is_null = found is None and name in self.config.values and value is True
            if is_null or (found is not None and found != value):
                raise self.config.fail(
                    name, f"must be {json.dumps(value)} for llama.cpp, not {found!r:.60}"
                )

    @property
    def _embedding(self) -> SentenceTransformer:
        """How texts' vectors are made, where the folder is of sentence-transformers."""
        return read_sentence_transformer(self.checkpoint, takes_dense=self.takes_dense)

    @property
    def _only_embeds(self) -> bool:
        """Whether the checkpoint is a model without a head, of whatever class it says it is."""
        headless = self.source_architecture.endswith("Model")
        return headless or self._embedding.pooling_type is not None

    def canonical(self, name: str) -> str:
        """A source name as the rules have it; models without a head are saved without a prefix."""
        name = super().canonical(name)
        bare = name.startswith(("embed_tokens.", "layers.", "norm."))
        return f"model.{name}" if bare and self.embedding == EMBEDDING else name

    def warn_of_window(self) -> None:
        """Tell about a window over the last tokens that llama.cpp's code for the family ignores."""
        window = self.config.values.get("sliding_window")
        if isinstance(window, int) and window < self.n_context:
            self.warnings.append(
                f"the checkpoint attends to the last {window} tokens only and llama.cpp to all: "
                "longer texts will come out differently"
            )

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
        if not self.rotary:
            return
        rope, n_rotated = self.rope, dimensions["rotated"]
        tensors = rope.longrope_factors(n_rotated)
        factors = rope.frequency_factors(n_rotated)
        known = self.takes_longrope if tensors else self.takes_frequency_factors
        if factors is not None:
            tensors["rope_freqs.weight"] = factors
        if tensors and not known:
            raise self.config.fail(
                "rope_parameters",
                f"ask for a {rope.kind} scaling that llama.cpp does not know for "
                f"{self.architecture}",
            )
        for name, values in tensors.items():
            yield NamedWeights(name, computed(values))

    def _mapped(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """As the rules say, but an output matrix that equals the embeddings is left out."""
        tied = self.config.boolean("tie_word_embeddings", default=self.tied_by_default)
        names = {self.canonical(name): name for name in self.checkpoint.tensors}
        head, embedding = names.get(self.head), names.get(self.embedding)
        if not tied and head is None and not self._only_embeds:
            raise self.config.fail(
                "tie_word_embeddings", f"is not true, but the checkpoint has no {self.head}"
            )
        for tensor in super()._mapped(dimensions):
            (source, *others) = tensor.weights.sources
            is_head = source == head and not others
            if is_head and embedding and self._is_superfluous(source, embedding, tied=tied):
                self.skipped[source] = "tied: the same as the token embeddings"
            else:
                yield tensor
        if self.demands_head and head is None and embedding:
            yield NamedWeights("output.weight", stored(self.checkpoint, embedding))

    def _is_superfluous(self, head: str, embedding: str, *, tied: bool) -> bool:
        """Whether an output matrix can be left out, because llama.cpp takes the embeddings."""
        if self.demands_head or not (tied or self.always_tied):
            return False
        if same_data(self.checkpoint, head, embedding):
            return True
        if self.always_tied:
            raise self.config.fail(
                "tie_word_embeddings",
                f"must be true for llama.cpp, and {head} the same as the embeddings",
            )
        # transformers ties only equal matrices; different ones are both used.
        self.warnings.append(
            f"tie_word_embeddings is true, but {head} differs from the embeddings; "
            "both were kept, as transformers does"
        )
        return False
