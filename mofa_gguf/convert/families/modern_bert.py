"""ModernBERT and embedding models made of it. llama.cpp: src/models/modern-bert.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH, Dimensions, Rule
from mofa_gguf.convert.families.bert import Bert
from mofa_gguf.convert.families.layer_types import layer_types
from mofa_gguf.convert.families.parts import matrix, norm
from mofa_gguf.convert.metadata import Metadata

_LAYER = "layers.{i}"
_SLIDING, _FULL = "sliding_attention", "full_attention"
_PERIOD = 3
_NORMED = "layer with a norm before its attention"
_FIXED: Mapping[str, object] = {
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "position_embedding_type": "rope",
}


@register("ModernBertModel", "ModernBertForMaskedLM")
class ModernBert(Bert):
    """Pre-norm encoder with rotary positions; two of three layers have a window to both sides."""

    architecture = "modern-bert"
    prefixes = ("model.",)
    half_precision: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    rules = (
        Rule("embeddings.tok_embeddings.weight", "token_embd.weight", ("vocab", "embd")),
        *norm("embeddings.norm", "token_embd_norm"),
        *(replace(rule, kind=_NORMED) for rule in norm(f"{_LAYER}.attn_norm", "blk.{i}.attn_norm")),
        matrix(f"{_LAYER}.attn.Wqkv", "blk.{i}.attn_qkv", "qkv", "embd"),
        matrix(f"{_LAYER}.attn.Wo", "blk.{i}.attn_output", "embd", "embd"),
        *norm(f"{_LAYER}.mlp_norm", "blk.{i}.ffn_norm"),
        matrix(f"{_LAYER}.mlp.Wi", "blk.{i}.ffn_up", "ff_twice", "embd"),
        matrix(f"{_LAYER}.mlp.Wo", "blk.{i}.ffn_down", "embd", "ff"),
        *norm("final_norm", "output_norm"),
    )
    skip: ClassVar[Mapping[str, str]] = {
        "head.*": "the heads of pre-training are no part of an embedding",
        "decoder.*": "the heads of pre-training are no part of an embedding",
    }

    def dimensions(self) -> Dimensions:
        """Sizes from config.json."""
        config = self.config
        embd = config.integer("hidden_size", maximum=MAX_WIDTH)
        heads = config.integer("num_attention_heads", maximum=embd)
        if embd % heads or (embd // heads) % 2:
            raise config.fail("hidden_size", f"must be an even multiple of {heads}, the heads")
        width = config.integer("intermediate_size", maximum=MAX_WIDTH)
        return {
            "vocab": config.integer("vocab_size", maximum=MAX_VOCABULARY),
            "layers": config.integer("num_hidden_layers", maximum=MAX_LAYERS),
            "embd": embd,
            "heads": heads,
            "qkv": 3 * embd,
            "ff": width,
            "ff_twice": 2 * width,
            "positions": config.integer("max_position_embeddings", default=8192),
            "types": 1,
        }

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """The first layer comes right behind the embeddings' norm."""
        return (_NORMED,) if layer else ()

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys that llama.cpp's loader asks for."""
        for name, value in _FIXED.items():
            found = self.config.values.get(name)
            if found is not None and found != value:
                raise self.config.fail(name, f"must be {value!r} for llama.cpp, not {found!r:.60}")
        activation = self.config.string("hidden_activation", default="gelu")
        if activation not in ("gelu", "silu"):
            raise self.config.fail("hidden_activation", "must be gelu or silu for llama.cpp")
        self.encoder_keys(metadata, dimensions)
        metadata.remove("tokenizer.ggml.token_type_count")
        epsilon = self.config.number("norm_eps", "layer_norm_eps", default=1e-5, minimum=0)
        metadata.float32(self.key("attention.layer_norm_epsilon"), epsilon)
        metadata.string(self.key("hidden_activation"), activation)
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])
        metadata.float32(self.key("rope.freq_base"), self._theta(_FULL, "global", 160_000.0))
        metadata.float32(self.key("rope.freq_base_swa"), self._theta(_SLIDING, "local", 10_000.0))
        self._window_keys(metadata, dimensions["layers"])

    def _theta(self, kind: str, former: str, default: float) -> float:
        """The base of the frequencies, by kind of layer since transformers 5."""
        default = self.config.number(f"{former}_rope_theta", default=default, minimum=1e-6)
        by_kind = self.config.section("rope_parameters")
        settings = by_kind.section(kind) if by_kind is not None else None
        if settings is None:
            return default
        if settings.string("rope_type", default="default") != "default":
            raise settings.fail("rope_type", "must be default for llama.cpp")
        return settings.number("rope_theta", default=default, minimum=1e-6)

    def _window_keys(self, metadata: Metadata, n_layers: int) -> None:
        period = self.config.integer("global_attn_every_n_layers", default=_PERIOD)
        default = [_SLIDING if i % period else _FULL for i in range(n_layers)]
        layers = layer_types(self.config, "layer_types", n_layers, (_SLIDING, _FULL), default)
        if len(set(layers)) != 2:
            # llama.cpp ends the process then.
            raise self.config.fail("layer_types", f"must hold {_SLIDING} and {_FULL}")
        window = self.config.integer("local_attention", default=128, minimum=2)
        metadata.uint32(self.key("attention.sliding_window"), window)
        if layers == [_SLIDING if i % _PERIOD else _FULL for i in range(n_layers)]:
            metadata.uint32(self.key("attention.sliding_window_pattern"), _PERIOD)
        else:
            windowed = [kind == _SLIDING for kind in layers]
            metadata.booleans(self.key("attention.sliding_window_pattern"), windowed)
