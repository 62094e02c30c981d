"""What a model's file says of the memory it will take, as plain values.

Cache and state sizes follow llama.cpp's src/llama-hparams.cpp and src/llama-kv-cache.cpp. Where a
dry load has measured them (:mod:`mofa_gguf.engine.planning.dry_load`), those totals go before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mofa_gguf.engine.files.header import ArraySummary, GGUFHeader, TensorInfo, read_header
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.planning.attention import head_lengths
from mofa_gguf.engine.planning.sizing import trained_context

_BLOCK = re.compile(r"blk\.(\d+)\.")
# The tensors that llama.cpp's own option for "experts on the CPU" names.
EXPERTS_PATTERN = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
_EXPERTS = re.compile(r"blk\.\d+" + EXPERTS_PATTERN)
# Read row by row, always by the CPU; whatever else stands outside of the blocks is output.
_INPUT = re.compile(r"^(token_embd|position_embd|token_types|per_layer_token_embd)")
_TOKEN_EMBEDDING = "token_embd.weight"  # noqa: S105 - a tensor's name
_F32 = 4
_POOLED = (1, 2, 3)  # llama.h, enum llama_pooling_type: mean, cls, last
_N_TOKENIZER_BYTES = 300
"""What llama.cpp's tables take for one token, measured (tools/measure_plan.py): the text with its
index entry, and as a piece. A merge takes about two thirds of it."""


class LayerFacts(NamedTuple):
    """One repeating layer."""

    n_bytes: int
    """Weights, experts included."""
    n_expert_bytes: int = 0
    """The part of them that only some tokens use."""
    kv_k: float = 0
    """Values of K that a token of context keeps."""
    kv_v: float = 0
    n_state_bytes: float = 0
    """What a sequence of any length keeps (recurrent layers)."""
    n_adapter_bytes: int = 0
    """LoRA matrices for it."""

    def cache_bytes(self, type_k: str, type_v: str, *, n_ctx: int, n_states: int) -> int:
        """KV cache and states of this layer."""
        kv = self.kv_k * value_bytes(type_k) + self.kv_v * value_bytes(type_v)
        return int(kv * n_ctx + self.n_state_bytes * n_states)


class ModelFacts(NamedTuple):
    """Sizes in bytes, and what bounds a plan."""

    name: str
    architecture: str
    layers: tuple[LayerFacts, ...]
    n_input_bytes: int
    """Token embeddings and their kind, which stay in the host's memory."""
    n_output_bytes: int
    """Output matrix and final norms: one more layer, for a device. May be the embeddings again."""
    n_embd: int
    n_ff: int
    n_heads: int
    n_vocab: int
    n_merges: int
    n_ctx_train: int
    n_parameters: int
    n_file_bytes: int
    n_tied_bytes: int = 0
    """The part of ``n_output_bytes`` that the host's memory need not hold a second time."""
    only_embeds: bool = False
    """Whether embedding is all it is loaded for."""
    n_output_adapter_bytes: int = 0
    """LoRA matrices for what is in no layer."""
    head_lengths: frozenset[int] = frozenset()
    """Values a head has; none where that has no say in how attention is computed."""

    @property
    def n_total(self) -> int:
        """Layers that can be placed: the repeating ones and the output."""
        return len(self.layers) + 1

    @property
    def has_experts(self) -> bool:
        """Whether any layer has experts."""
        return any(layer.n_expert_bytes for layer in self.layers)

    @property
    def n_weight_bytes(self) -> int:
        """All weights, each once."""
        own = self.n_output_bytes - self.n_tied_bytes
        return self.n_input_bytes + own + sum(layer.n_bytes for layer in self.layers)

    @property
    def n_tokenizer_bytes(self) -> int:
        """The vocabulary's tables."""
        return self.n_vocab * _N_TOKENIZER_BYTES + self.n_merges * _N_TOKENIZER_BYTES * 2 // 3

    def cache_bytes(self, type_k: str, type_v: str, *, n_ctx: int, n_states: int) -> int:
        """KV cache and states of all layers."""
        return sum(
            layer.cache_bytes(type_k, type_v, n_ctx=n_ctx, n_states=n_states)
            for layer in self.layers
        )

    def corrected(self, *, kv_ratio: float, state_ratio: float) -> ModelFacts:
        """The same with every layer's cache scaled to totals that were measured."""
        layers = tuple(
            layer._replace(
                kv_k=layer.kv_k * kv_ratio,
                kv_v=layer.kv_v * kv_ratio,
                n_state_bytes=layer.n_state_bytes * state_ratio,
            )
            for layer in self.layers
        )
        return self._replace(layers=layers)


def value_bytes(name: str) -> float:
    """Bytes of one cached value of a type."""
    kind = TYPES_BY_NAME[name.upper()]
    return kind.n_block_bytes / kind.block_size


def all_tensors(header: GGUFHeader) -> tuple[TensorInfo, ...]:
    """The tensors of a file and, of a split model, of the parts beside it."""
    n_parts = header.metadata.get("split.count", 1)
    found = re.search(r"-00001-of-(\d{5})\.gguf$", header.path.name)
    if not isinstance(n_parts, int) or n_parts < 2 or found is None:
        return header.tensors
    stem = header.path.name[: found.start()]
    tensors = list(header.tensors)
    for number in range(2, n_parts + 1):
        part = header.path.with_name(f"{stem}-{number:05d}-of-{found[1]}.gguf")
        tensors += read_header(part).tensors
    return tuple(tensors)


def model_facts(header: GGUFHeader, tensors: Sequence[TensorInfo] | None = None) -> ModelFacts:
    """The facts of the model that ``header`` is the header of."""
    tensors = all_tensors(header) if tensors is None else tensors
    n_layers = _number(header, "block_count")
    weights, experts = [0] * n_layers, [0] * n_layers
    n_input, n_output = 0, 0
    for tensor in tensors:
        block = block_of(tensor.name)
        if block is not None and block < n_layers:
            weights[block] += tensor.n_bytes
            if _EXPERTS.match(tensor.name):
                experts[block] += tensor.n_bytes
        elif _INPUT.match(tensor.name):
            n_input += tensor.n_bytes
        else:
            n_output += tensor.n_bytes
    sizes = {tensor.name: tensor.n_bytes for tensor in tensors}
    tied = 0 if "output.weight" in sizes else sizes.get(_TOKEN_EMBEDDING, 0)
    kv, states = _kv_values(header, n_layers), _state_bytes(header, n_layers)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return ModelFacts(
        name=header.path.name,
        architecture=header.architecture,
        layers=tuple(
            LayerFacts(weights[i], experts[i], *kv[i], states[i]) for i in range(n_layers)
        ),
        n_input_bytes=n_input,
        n_output_bytes=n_output + tied,
        n_embd=_number(header, "embedding_length"),
        n_ff=max(_per_layer(header.hyperparameter("feed_forward_length", 0), 1), default=0),
        n_heads=max(_per_layer(header.hyperparameter("attention.head_count", 0), 1), default=0),
        n_vocab=_length(tokens),
        n_merges=_length(header.metadata.get("tokenizer.ggml.merges")),
        n_ctx_train=trained_context(header),
        n_parameters=sum(tensor.n_elements for tensor in tensors),
        n_file_bytes=sum(sizes.values()),
        n_tied_bytes=tied,
        only_embeds=only_embeds(header),
        head_lengths=head_lengths(header),
    )


def only_embeds(header: GGUFHeader) -> bool:
    """Whether a model is made for vectors: an encoder, or one whose file says how to pool them."""
    if header.hyperparameter("attention.causal", True) is False:
        return True
    return header.hyperparameter("pooling_type") in _POOLED


def mapped_span(tensors: Iterable[TensorInfo]) -> int:
    """Bytes of file that stay mapped for these tensors: from the first one to the last."""
    ends = [(tensor.offset, tensor.offset + tensor.n_bytes) for tensor in tensors]
    return max((end for _, end in ends), default=0) - min((start for start, _ in ends), default=0)


def block_of(name: str) -> int | None:
    """The number of the layer that a tensor of this name belongs to, if it belongs to one."""
    found = _BLOCK.match(name)
    return int(found[1]) if found else None


def is_input(name: str) -> bool:
    """Whether a tensor is read row by row and never multiplied with."""
    return _INPUT.match(name) is not None


def _kv_values(header: GGUFHeader, n_layers: int) -> list[tuple[float, float]]:
    """Values of K and of V that each layer keeps for a token."""
    if header.hyperparameter("attention.causal", True) is False:
        return [(0, 0)] * n_layers  # an encoder sees its text whole and keeps nothing
    heads = _per_layer(header.hyperparameter("attention.head_count", 0), n_layers)
    stated = header.hyperparameter("attention.head_count_kv")
    kv_heads = heads if stated is None else _per_layer(stated, n_layers)
    head = _number(header, "embedding_length") // max(heads, default=0) if any(heads) else 0
    length_k = _number(header, "attention.key_length", head)
    length_v = _number(header, "attention.value_length", head)
    if _number(header, "attention.key_length_mla"):
        length_v = 0  # latent attention: V is a part of what is kept as K
    swa_k = _number(header, "attention.key_length_swa", length_k)
    swa_v = _number(header, "attention.value_length_swa", length_v)
    windowed = _windowed(header, n_layers)
    shared = _number(header, "attention.shared_kv_layers")
    interval = _number(header, "full_attention_interval")
    values: list[tuple[float, float]] = []
    for i, n_heads in enumerate(kv_heads):
        reuses = i >= n_layers - shared
        recurrent = bool(interval) and (i + 1) % interval != 0
        if reuses or recurrent:
            n_heads = 0
        k, v = (swa_k, swa_v) if windowed[i] else (length_k, length_v)
        values.append((n_heads * k, n_heads * v))
    return values


def _windowed(header: GGUFHeader, n_layers: int) -> list[bool]:
    """Which layers the file says to have a sliding window, where it says so layer by layer."""
    pattern = header.hyperparameter("attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) == n_layers:
        return [bool(each) for each in pattern]
    return [False] * n_layers


def _state_bytes(header: GGUFHeader, n_layers: int) -> list[float]:
    """Bytes of state that each layer keeps for a sequence; 0 in layers of attention."""
    n_embd = _number(header, "embedding_length")
    inner, state = _number(header, "ssm.inner_size"), _number(header, "ssm.state_size")
    short = _number(header, "shortconv.l_cache")
    wkv = _number(header, "wkv.head_size")
    if wkv:
        values = n_embd * wkv + _number(header, "token_shift_count", 2) * n_embd
    elif short:
        values = n_embd * (short - 1)
    elif inner:
        convolution = max(0, _number(header, "ssm.conv_kernel") - 1)
        values = convolution * (inner + 2 * _number(header, "ssm.group_count") * state)
        values += state * inner
    else:
        return [0] * n_layers
    stated = header.hyperparameter("attention.head_count_kv")
    interval = _number(header, "full_attention_interval")
    if isinstance(stated, list):
        attends = [heads > 0 for heads in _per_layer(stated, n_layers)]
    else:
        attends = [bool(interval) and (i + 1) % interval == 0 for i in range(n_layers)]
    return [0 if attend else values * _F32 for attend in attends]


def _number(header: GGUFHeader, name: str, default: int = 0) -> int:
    value = header.hyperparameter(name, default)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _per_layer(value: object, n_layers: int) -> list[int]:
    if isinstance(value, list):
        values = [int(v) for v in value if isinstance(v, int | float)]
        return (values + [0] * n_layers)[: max(n_layers, len(values))]
    return [int(value) if isinstance(value, int) else 0] * n_layers


def _length(value: object) -> int:
    if isinstance(value, ArraySummary):
        return value.length
    return len(value) if isinstance(value, list) else 0


def facts_of(path: Path | str) -> ModelFacts:
    """The facts of the model file at ``path``. Raises ModelFileError."""
    return model_facts(read_header(path))
