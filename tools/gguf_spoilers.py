"""Spoilt GGUF files: one change, or a few, decided by a number."""

from __future__ import annotations

import contextlib
import copy
import random
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from tools.gguf_parts import ARRAY, FORMS, STRING, Pair, Parts, Tensor, take_apart

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 5, 7, 31, 33, 255, 256, 257, 2**15, 2**16, 10**6, 2**31 - 1, 2**31, 2**32),
    *(2**32 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)),
    *(0.0, -0.0, 0.5, 1e-45, 1e38, -1.5, float("inf"), float("-inf"), float("nan")),
)
ARCHITECTURES = (
    *("llama", "llama4", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3"),
    *("bert", "nomic-bert", "jina-bert-v2", "modern-bert", "mamba", "mamba2", "jamba", "phi3"),
    *("deepseek2", "gpt2", "falcon", "bloom", "mpt", "rwkv6", "rwkv7", "arwkv7", "t5", "t5encoder"),
    *("clip", "wavtokenizer-dec", "gpt-oss", "lfm2", "granitehybrid", "qwen3next", "minicpm3"),
    *("no-such", "", "x" * 300, "\0", "plamo2", "chatglm", "baichuan", "starcoder", "olmo2"),
)
WORDS = (b"", b"a", b"\0", b"a\0b", b" ", b"\n", b"\xff\xfe", b"<0x", b"<0xZZ>", b"x" * 5000)
Random = random.Random
_MOST_BASES = 16


def number_near(value: Any, dice: Random) -> Any:
    """Near the value, or far away from it."""
    if not isinstance(value, int | float) or dice.random() < 0.5:
        return dice.choice(NUMBERS)
    if isinstance(value, float):
        return dice.choice([-value, value * 1e30, value / 1e30, 0.0, value * 2])
    return dice.choice(
        [value + 1, value - 1, value * 2, value // 2, -value, value * 3, value << 16]
    )


def spoil_hyperparameter(parts: Parts, dice: Random) -> None:
    """A number of the architecture's own, or one that was not there."""
    own = [pair for pair in parts.pairs if not pair.key.startswith((b"general", b"tokenizer"))]
    if not own:
        return
    pair = dice.choice(own)
    if dice.random() < 0.2:
        name = dice.choice(KEYS)
        prefix = pair.key.split(b".")[0].decode(errors="replace")
        kind = dice.choice([4, 4, 5, 6, 10])
        if dice.random() < 0.25:
            n_values = dice.choice([0, 1, 2, 3, 4, 512, 600])
            values = [dice.choice(NUMBERS) for _ in range(n_values)]
            parts.set(f"{prefix}.{name}", ARRAY, values, kind)
        else:
            parts.set(f"{prefix}.{name}", kind, dice.choice(NUMBERS))
    elif isinstance(pair.value, list):
        if pair.value and dice.random() < 0.6:
            at = dice.randrange(len(pair.value))
            pair.value = [*pair.value]
            pair.value[at] = number_near(pair.value[at], dice)
        else:
            pair.value = pair.value[: dice.randrange(len(pair.value) + 1)] or [0] * 600
    elif isinstance(pair.value, bytes):
        pair.value = dice.choice([*WORDS, b"none", b"linear", b"yarn", b"longrope"])
    else:
        pair.value = number_near(pair.value, dice)


def spoil_key(parts: Parts, dice: Random) -> None:
    """An entry gone, twice, or under another name."""
    pair = dice.choice(parts.pairs)
    kind = dice.randrange(3)
    if kind == 0:
        parts.pairs.remove(pair)
    elif kind == 1:
        parts.pairs.append(copy.copy(pair))
    else:
        pair.key = dice.choice([pair.key + b"x", pair.key.upper(), b"", b"x" * 70_000, b"\xff"])


def spoil_type(parts: Parts, dice: Random) -> None:
    """A value as another type."""
    pair = dice.choice(parts.pairs)
    types = (*FORMS, STRING, 13, 255, 2**32 - 1)
    if pair.type == ARRAY and dice.random() < 0.7:
        pair.element = dice.choice([*types, ARRAY])
    elif pair.type == ARRAY:
        pair.type, pair.value = STRING, b"x"
    elif dice.random() < 0.3:
        pair.value = [pair.value] * dice.choice([0, 1, 2, 5, 1000])
        pair.type, pair.element = ARRAY, pair.type
    else:
        pair.type = dice.choice(types)


def spoil_counts(parts: Parts, dice: Random) -> None:
    """What the header says of how much there is."""
    lie = dice.choice([0, 1, 2, 2**16, 2**31, 2**32, 2**60, 2**63, 2**64 - 1])
    if dice.random() < 0.5:
        parts.n_pairs = dice.choice([lie, len(parts.pairs) - 1, len(parts.pairs) + 1])
    else:
        parts.n_tensors = dice.choice([lie, len(parts.tensors) - 1, len(parts.tensors) + 1])


def spoil_version(parts: Parts, dice: Random) -> None:
    """Magic number and version."""
    if dice.random() < 0.5:
        parts.version = dice.choice([0, 1, 2, 4, 3 << 24, 2**32 - 1])
    else:
        parts.magic = dice.choice([b"GGML", b"ggjt", b"tjgg", b"\0\0\0\0", b"GGUf", b"PK\3\4"])


def spoil_tensor(parts: Parts, dice: Random) -> None:
    """A tensor's shape or type, with data to match; or its name, or the tensor itself."""
    tensor = dice.choice(parts.tensors)
    kind = dice.random()
    if kind < 0.35:
        tensor.type = dice.choice(
            [0, 1, 2, 3, 6, 8, 10, 12, 14, 16, 20, 24, 26, 28, 30, 34, 39, 40]
        )
        tensor.refill()
    elif kind < 0.6:
        at = dice.randrange(len(tensor.shape) or 1)
        if tensor.shape:
            tensor.shape[at] = abs(int(_whole(number_near(tensor.shape[at], dice)))) % 2**64
        tensor.refill()
    elif kind < 0.7:
        tensor.shape = dice.choice(
            [tensor.shape[::-1], [*tensor.shape, 1, 2], tensor.shape[:1], []]
        )
        tensor.refill()
    elif kind < 0.8:
        parts.tensors.remove(tensor)
    elif kind < 0.9:
        other = dice.choice(parts.tensors)
        tensor.name, other.name = other.name, tensor.name
    else:
        extra = dice.choice([b"", b"blk.99.attn_q.weight", b"x", tensor.name, b"y" * 64, b"a\0b"])
        parts.tensors.append(Tensor(extra, [*tensor.shape], tensor.type, tensor.data))


def spoil_offsets(parts: Parts, dice: Random) -> None:
    """Where a tensor is said to lie, its type or its number of dimensions, and nothing else."""
    tensor = dice.choice(parts.tensors)
    kind = dice.randrange(3)
    if kind == 0:
        tensor.offset = dice.choice([0, 1, 32, 2**20, 2**40, 2**63, 2**64 - 32, len(tensor.data)])
    elif kind == 1:
        tensor.type = dice.choice([*range(45), 255, 2**31, 2**32 - 1])
    else:
        tensor.shape = tensor.shape + [1] * dice.choice([1, 2, 3, 4, 8])


def spoil_values(parts: Parts, dice: Random) -> None:
    """Weights that are no numbers, or absurd ones."""
    tensor = dice.choice(parts.tensors)
    fill = dice.choice([b"\xff\xff\xff\x7f", b"\0\0\x80\x7f", b"\0\0\0\0", b"\xff\x7f\x7f\x7f"])
    tensor.data = (fill * (len(tensor.data) // 4 + 1))[: len(tensor.data)]


def spoil_vocabulary(parts: Parts, dice: Random) -> None:
    """Tokens, their types and scores, merges, ids of special tokens."""
    lists = [p for p in parts.pairs if p.key.startswith(b"tokenizer.") and p.type == ARRAY]
    ids = [p for p in parts.pairs if p.key.startswith(b"tokenizer.") and p.type in (4, 5, 7)]
    kind = dice.random()
    if kind < 0.6 and lists:
        pair = dice.choice(lists)
        pair.value = [*pair.value]
        for _ in range(dice.choice([1, 1, 3, 300])):
            _spoil_list(pair, dice)
    elif kind < 0.8 and ids:
        pair = dice.choice(ids)
        pair.value = number_near(pair.value, dice)
    elif kind < 0.9:
        names = (
            "llama",
            "gpt2",
            "bert",
            "t5",
            "rwkv",
            "plamo2",
            "none",
            "no_vocab",
            "test",
            "x",
            "",
        )
        parts.set("tokenizer.ggml.model", STRING, dice.choice(names).encode())
    else:
        names = (
            "default",
            "llama-bpe",
            "qwen2",
            "gpt-4o",
            "kimi-k2",
            "x",
            "",
            "jina-v2-de",
            "gemma4",
        )
        parts.set("tokenizer.ggml.pre", STRING, dice.choice(names).encode())


def _spoil_list(pair: Pair, dice: Random) -> None:
    values = pair.value
    if not values:
        return
    at, kind = dice.randrange(len(values)), dice.random()
    if kind < 0.25:
        values[at] = dice.choice(values)
    elif kind < 0.4:
        del values[at]
    elif kind < 0.5:
        values.append(dice.choice(values))
    elif kind < 0.53:
        del values[at:]
    elif isinstance(values[at], bytes):
        values[at] = dice.choice([*WORDS, values[at] + b"x", values[at][:-1]])
    elif pair.element in (4, 5):
        values[at] = dice.choice([*range(8), -1, 2**31 - 1])
    else:
        values[at] = number_near(values[at], dice)


def spoil_metadata(parts: Parts, dice: Random) -> None:
    """Architecture, alignment, parts of a set, chat template, fine print."""
    kind = dice.randrange(6)
    if kind == 0:
        _rename_architecture(parts, dice.choice(ARCHITECTURES).encode(errors="replace"))
    elif kind == 1:
        parts.set("general.alignment", dice.choice([4, 4, 5, 10]), dice.choice(NUMBERS))
    elif kind == 2:
        for name in ("split.no", "split.count", "split.tensors.count"):
            if dice.random() < 0.7:
                parts.set(name, dice.choice([2, 2, 4, 5]), dice.choice([0, 1, 2, 65535, -1]))
    elif kind == 3:
        parts.set("tokenizer.chat_template", STRING, dice.choice(TEMPLATES))
    elif kind == 4:
        parts.set("general.type", STRING, dice.choice([b"adapter", b"mmproj", b"imatrix", b""]))
    else:
        name = dice.choice(["general.name", "general.file_type", "general.quantization_version"])
        parts.set(name, dice.choice([STRING, 4]), dice.choice([*WORDS, 2**31]))


def _rename_architecture(parts: Parts, name: bytes) -> None:
    """Another architecture; half of its hyperparameters come along by their position."""
    before = parts.pair("general.architecture").value
    if not isinstance(before, bytes):  # spoilt already
        return
    parts.pair("general.architecture").value = name
    for pair in parts.pairs:
        if pair.key.startswith(before + b"."):
            pair.key = name + pair.key[len(before) :]


def spoil_bytes(data: bytes, end: int, dice: Random) -> bytes:
    """Bytes before ``end`` changed, taken out, put in or cut off."""
    out = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at = dice.randrange(max(1, min(end, len(out))))
        kind = dice.randrange(6)
        if kind == 0:
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            out[at] = dice.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            del out[at : at + dice.choice([1, 4, 8, 100])]
        elif kind == 3:
            out[at:at] = dice.randbytes(dice.choice([1, 4, 8]))
        elif kind == 4:
            number = dice.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(data)])
            out[at : at + 8] = struct.pack("<Q", number)
        elif dice.random() < 0.3:
            del out[at:]
        if not out:
            return bytes(out)
    return bytes(out)


def _whole(value: Any) -> int:
    return int(value) if value == value and abs(value) < 1e30 else 2**63


KEYS = (
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "expert_count"),
    *("attention.value_length", "attention.sliding_window", "attention.causal", "pooling_type"),
    *("attention.sliding_window_pattern", "expert_used_count", "expert_group_count", "vocab_size"),
    *("expert_group_used_count", "expert_shared_count", "leading_dense_block_count", "rope.scale"),
    *("nextn_predict_layers", "rope.dimension_count", "rope.dimension_sections", "rope.freq_base"),
    *("rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"),
    *("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "ssm.conv_kernel"),
    *("ssm.state_size", "ssm.inner_size", "ssm.time_step_rank", "ssm.group_count"),
    *("embedding_length_out", "feed_forward_length", "expert_feed_forward_length", "block_count"),
    *("attention.scale", "attn_logit_softcapping", "final_logit_softcapping", "logit_scale"),
    *("attention.shared_kv_layers", "attention.max_alibi_bias", "attention.clamp_kqv"),
    *("expert_gating_func", "expert_weights_scale", "expert_weights_norm", "token_shift_count"),
    *("attention.temperature_length", "attention.output_scale", "router_layer"),
    *("rope.scaling.yarn_ext_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.attn_factor"),
    *("attention.indexer.head_count", "n_deepstack_layers", "swin_norm", "use_parallel_residual"),
    *("interleave_moe_layer_step", "moe_every_n_layers", "full_attention_interval"),
    *("attention.group_norm_groups", "decoder_block_count"),
)  # fmt: skip
TEMPLATES = (
    *(b"", b"{{", b"{% for x in range(10**9) %}a{% endfor %}", b"{{ 'a' * 10**9 }}", b"\xff\xfe"),
    *(b"{{ messages[0].__class__.__mro__ }}", b"{{ raise_exception('no') }}", b"x" * 3_000_000),
    *(b"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", b"(" * 5000, b"{{" + b"(" * 5000),
    *(b"{{ messages[9].content }}", b"{{ ('a' * 50000) | join(',') }}", b"{% include 'x' %}"),
)
SPOILERS: tuple[Callable[[Parts, Random], None], ...] = (
    *(spoil_hyperparameter, spoil_hyperparameter, spoil_hyperparameter, spoil_hyperparameter),
    *(spoil_tensor, spoil_tensor, spoil_tensor, spoil_vocabulary, spoil_vocabulary),
    *(spoil_vocabulary, spoil_metadata, spoil_type, spoil_key, spoil_counts, spoil_version),
    *(spoil_offsets, spoil_values),
)


@lru_cache(maxsize=_MOST_BASES)
def base_parts(path: Path) -> Parts:
    """The parts of a base model."""
    return take_apart(path)


def spoil(base: Path, case: int) -> tuple[str, bytes]:
    """(what was spoilt, the bytes of the file), decided by the case's number."""
    dice = random.Random(case)
    if dice.random() < 0.15:
        data = base.read_bytes()
        parts = base_parts(base)
        end = len(data) - sum(len(t.data) for t in parts.tensors)
        return "bytes", spoil_bytes(data, end if dice.random() < 0.8 else len(data), dice)
    parts = copy.deepcopy(base_parts(base))
    chosen = [dice.choice(SPOILERS) for _ in range(dice.choice([1, 1, 1, 1, 2, 3]))]
    for each in chosen:
        if parts.pairs and parts.tensors:
            with contextlib.suppress(KeyError):
                each(parts, dice)
    return chosen[0].__name__.removeprefix("spoil_"), parts.data()
