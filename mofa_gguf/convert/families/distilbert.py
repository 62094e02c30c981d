"""DistilBERT: half of BERT's layers, no kinds of tokens. llama.cpp: src/models/bert.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.bert import Bert
from mofa_gguf.convert.families.parts import layer_norm, linear
from mofa_gguf.convert.metadata import Metadata

_LAYER = "transformer.layer.{i}"


@register("DistilBertModel", "DistilBertForMaskedLM")
class DistilBert(Bert):
    """Names of its own for what BERT has."""

    prefixes = ("distilbert.",)
    renamed: ClassVar[Mapping[str, str]] = {
        "dim": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "hidden_dim": "intermediate_size",
        "activation": "hidden_act",
    }
    defaults: ClassVar[Mapping[str, object]] = {"max_position_embeddings": 512}
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("embeddings.word_embeddings.weight", "token_embd.weight", ("vocab", "embd")),
        Rule(
            "embeddings.position_embeddings.weight", "position_embd.weight", ("positions", "embd")
        ),
        *layer_norm("embeddings.LayerNorm", "token_embd_norm"),
        *linear(f"{_LAYER}.attention.q_lin", "blk.{i}.attn_q", "embd", "embd"),
        *linear(f"{_LAYER}.attention.k_lin", "blk.{i}.attn_k", "embd", "embd"),
        *linear(f"{_LAYER}.attention.v_lin", "blk.{i}.attn_v", "embd", "embd"),
        *linear(f"{_LAYER}.attention.out_lin", "blk.{i}.attn_output", "embd", "embd"),
        *layer_norm(f"{_LAYER}.sa_layer_norm", "blk.{i}.attn_output_norm"),
        *linear(f"{_LAYER}.ffn.lin1", "blk.{i}.ffn_up", "ff", "embd"),
        *linear(f"{_LAYER}.ffn.lin2", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm(f"{_LAYER}.output_layer_norm", "blk.{i}.layer_output_norm"),
    )
    skip: ClassVar[Mapping[str, str]] = {
        "embeddings.position_ids": "llama.cpp counts the positions itself",
        "vocab_*": "the heads of pre-training are no part of an embedding",
    }

    def encoder_keys(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """BERT's; llama.cpp wants to hear of one kind of tokens, and needs no vector for it."""
        super().encoder_keys(metadata, {**dimensions, "types": 1})
