"""Nomic's BERT: nomic-embed-text 1 and 1.5. llama.cpp: src/models/nomic-bert.cpp, bert.cpp.

config.json has the names of the authors' own code or, written by transformers 5, those of BERT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH, Dimensions, Rule
from mofa_gguf.convert.families.bert import Bert
from mofa_gguf.convert.families.parts import layer_norm, matrix
from mofa_gguf.convert.metadata import Metadata

_LAYER = "encoder.layers.{i}"
# Values of the authors' configuration that llama.cpp computes with.
_FIXED: Mapping[str, object] = {
    "activation_function": "swiglu",
    "causal": False,
    "hidden_act": "silu",
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "moe_every_n_layers": 0,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "use_rms_norm": False,
}


@register("NomicBertModel")
class NomicBert(Bert):
    """Post-norm encoder with rotary positions, gated feed-forward parts and few biases."""

    architecture = "nomic-bert"
    prefixes = ("bert.",)
    half_precision: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    rules = (
        Rule("embeddings.word_embeddings.weight", "token_embd.weight", ("vocab", "embd")),
        Rule("embeddings.token_type_embeddings.weight", "token_types.weight", ("types", "embd")),
        *layer_norm("emb_ln", "token_embd_norm"),
        matrix(f"{_LAYER}.attn.Wqkv", "blk.{i}.attn_qkv", "qkv", "embd"),
        matrix(f"{_LAYER}.attn.out_proj", "blk.{i}.attn_output", "embd", "embd"),
        *layer_norm(f"{_LAYER}.norm1", "blk.{i}.attn_output_norm"),
        matrix(f"{_LAYER}.mlp.fc11", "blk.{i}.ffn_up", "ff", "embd"),
        matrix(f"{_LAYER}.mlp.fc12", "blk.{i}.ffn_gate", "ff", "embd"),
        matrix(f"{_LAYER}.mlp.fc2", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm(f"{_LAYER}.norm2", "blk.{i}.layer_output_norm"),
    )

    def dimensions(self) -> Dimensions:
        """Sizes from config.json."""
        config = self.config
        embd = config.integer("hidden_size", "n_embd", maximum=MAX_WIDTH)
        heads = config.integer("num_attention_heads", "n_head", maximum=embd)
        if embd % heads or (embd // heads) % 2:
            raise config.fail("n_embd", f"must be an even multiple of {heads}, the number of heads")
        return {
            "vocab": config.integer("vocab_size", maximum=MAX_VOCABULARY),
            "layers": config.integer("num_hidden_layers", "n_layer", maximum=MAX_LAYERS),
            "embd": embd,
            "heads": heads,
            "qkv": 3 * embd,
            "ff": config.integer("intermediate_size", "n_inner", maximum=MAX_WIDTH),
            "positions": self._n_context(),
            "types": config.integer("type_vocab_size", default=2, maximum=1024),
        }

    def _n_context(self) -> int:
        """nomic-embed-text says 8192 positions and was trained for 2048."""
        positions = self.config.integer("max_position_embeddings", "n_positions")
        return min(positions, self.config.integer("max_trained_positions", default=2048))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys that llama.cpp's loader asks for."""
        for name, value in _FIXED.items():
            found = self.config.values.get(name)
            if found is not None and found != value:
                raise self.config.fail(name, f"must be {value!r} for llama.cpp, not {found!r:.60}")
        self.encoder_keys(metadata, dimensions)
        metadata.float32(self.key("rope.freq_base"), self._theta())

    def _theta(self) -> float:
        settings = self.config.section("rope_parameters", "rope_scaling")
        default = self.config.number("rotary_emb_base", "rope_theta", default=1000.0, minimum=1e-6)
        if settings is None:
            return default
        if settings.string("rope_type", "type", default="default") != "default":
            raise settings.fail("rope_type", "must be default for this architecture")
        return settings.number("rope_theta", default=default, minimum=1e-6)
