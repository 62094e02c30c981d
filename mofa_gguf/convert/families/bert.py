"""BERT encoders that give embeddings: all-MiniLM, BGE, E5 and their kind.

llama.cpp: src/models/bert.cpp. How token vectors become a text's vector is read from the folder's
sentence-transformers files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import (
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Dimensions,
    Family,
    Rule,
)
from mofa_gguf.convert.families.sentence_transformers import read_sentence_transformer
from mofa_gguf.convert.metadata import Metadata

_LAYER = "encoder.layer.{i}"


def _linear(source: str, target: str, out: str, inn: str) -> tuple[Rule, Rule]:
    """A matrix and its bias."""
    return (
        Rule(f"{source}.weight", f"{target}.weight", (out, inn)),
        Rule(f"{source}.bias", f"{target}.bias", (out,)),
    )


def _norm(source: str, target: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{source}.weight", f"{target}.weight", ("embd",)),
        Rule(f"{source}.bias", f"{target}.bias", ("embd",)),
    )


@register("BertModel", "BertForMaskedLM")
class Bert(Family):
    """Post-norm encoder with learned positions."""

    architecture = "bert"
    prefixes = ("bert.",)
    # llama.cpp rounds the inputs of Q8_0 matrices to Q8_0 as well. In texts of a few tokens that
    # error does not average out: all-MiniLM-L6-v2's vectors of the empty text and of "?!..." have
    # cosines of 0.9984 and 0.9976 with the exact ones, and 0.9997 and 0.9995 with these in F16.
    # The file grows from 24.9 to 29.4 MB.
    half_precision: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Q8_0": ("attn_v.weight", "ffn_up.weight")
    }
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("embeddings.word_embeddings.weight", "token_embd.weight", ("vocab", "embd")),
        Rule(
            "embeddings.position_embeddings.weight", "position_embd.weight", ("positions", "embd")
        ),
        Rule("embeddings.token_type_embeddings.weight", "token_types.weight", ("types", "embd")),
        *_norm("embeddings.LayerNorm", "token_embd_norm"),
        *_linear(f"{_LAYER}.attention.self.query", "blk.{i}.attn_q", "embd", "embd"),
        *_linear(f"{_LAYER}.attention.self.key", "blk.{i}.attn_k", "embd", "embd"),
        *_linear(f"{_LAYER}.attention.self.value", "blk.{i}.attn_v", "embd", "embd"),
        *_linear(f"{_LAYER}.attention.output.dense", "blk.{i}.attn_output", "embd", "embd"),
        *_norm(f"{_LAYER}.attention.output.LayerNorm", "blk.{i}.attn_output_norm"),
        *_linear(f"{_LAYER}.intermediate.dense", "blk.{i}.ffn_up", "ff", "embd"),
        *_linear(f"{_LAYER}.output.dense", "blk.{i}.ffn_down", "embd", "ff"),
        *_norm(f"{_LAYER}.output.LayerNorm", "blk.{i}.layer_output_norm"),
    )
    skip: ClassVar[Mapping[str, str]] = {
        "embeddings.position_ids": "llama.cpp counts the positions itself",
        "pooler.*": "the pooler's dense layer is no part of an embedding",
        "cls.*": "the heads of pre-training are no part of an embedding",
    }

    def canonical(self, name: str) -> str:
        """Without the prefix, and with today's names of the norms' parameters."""
        name = super().canonical(name)
        if name.endswith("LayerNorm.gamma"):
            return name.removesuffix("gamma") + "weight"
        if name.endswith("LayerNorm.beta"):
            return name.removesuffix("beta") + "bias"
        return name

    def dimensions(self) -> Dimensions:
        """Sizes from config.json."""
        config = self.config
        embd = config.integer("hidden_size", maximum=MAX_WIDTH)
        heads = config.integer("num_attention_heads", maximum=embd)
        if embd % heads:
            raise config.fail("hidden_size", f"must be a multiple of {heads}, the number of heads")
        return {
            "vocab": config.integer("vocab_size", maximum=MAX_VOCABULARY),
            "layers": config.integer("num_hidden_layers", maximum=MAX_LAYERS),
            "embd": embd,
            "heads": heads,
            "ff": config.integer("intermediate_size", maximum=MAX_WIDTH),
            "positions": config.integer("max_position_embeddings", maximum=MAX_VOCABULARY),
            "types": config.integer("type_vocab_size", default=2, maximum=1024),
        }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys that llama.cpp's BERT loader asks for."""
        self._demand("hidden_act", "gelu")
        self._demand("position_embedding_type", "absolute")
        self.encoder_keys(metadata, dimensions)

    def encoder_keys(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """What every BERT's loader asks for, and how vectors are pooled."""
        metadata.uint32(self.key("block_count"), dimensions["layers"])
        metadata.uint32(self.key("context_length"), dimensions["positions"])
        metadata.uint32(self.key("embedding_length"), dimensions["embd"])
        metadata.uint32(self.key("feed_forward_length"), dimensions["ff"])
        metadata.uint32(self.key("attention.head_count"), dimensions["heads"])
        epsilon = self.config.number(
            "layer_norm_eps", "layer_norm_epsilon", default=1e-12, minimum=0
        )
        metadata.float32(self.key("attention.layer_norm_epsilon"), epsilon)
        metadata.boolean(self.key("attention.causal"), False)
        metadata.uint32("tokenizer.ggml.token_type_count", dimensions["types"])
        read_sentence_transformer(self.checkpoint).write(metadata, self.architecture)

    def _demand(self, name: str, value: str) -> None:
        found = self.config.string(name, default=value)
        if found != value:
            raise self.config.fail(name, f"must be {value!r} for llama.cpp, not {found!r:.60}")
