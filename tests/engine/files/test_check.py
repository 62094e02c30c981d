"""The checks in front of llama.cpp. Each case here ended the process before there was a check."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf.constants import MODEL_ARCH_NAMES

from mofa_gguf.engine.errors import ModelFileError, UnsupportedModel
from mofa_gguf.engine.files import known
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.tensor_types import TYPES_BY_ID
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.fit import plan_load
from tests.support.tiny_gguf import TinyLlama, TinyVocab, write_tiny_llama
from tools.gguf_parts import ARRAY, STRING, Parts, Tensor, take_apart

U32, I32, F32, BOOL = 4, 5, 6, 7
TOKENS = "tokenizer.ggml.tokens"


def sentencepiece(*, space: bool = True, byte_tokens: bool = True) -> TinyVocab:
    """A vocabulary of SentencePiece's kind."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)] if byte_tokens else []
    words = [*["\u2581"] * space, "a", "b", "ab", "?"]
    types = [2, 3, 3, *[6] * len(fallback), *[1] * len(words)]
    tokens = ["<unk>", "<s>", "</s>", *fallback, *words]
    scores = [0.0] * (3 + len(fallback)) + [-float(n) for n in range(len(words))]
    return TinyVocab("llama", tokens, types, bos=1, eos=2, pre="default", scores=scores)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return take_apart(write_tiny_llama(tmp_path_factory.mktemp("sound") / "tiny.gguf"))


def problem_of(parts: Parts, folder: Path) -> str:
    """What the plan for a model of these parts says is wrong with it."""
    path = parts.write(folder / "model.gguf")
    with pytest.raises(ModelFileError) as caught:
        plan_load(read_header(path), EngineOptions(n_ctx=64))
    assert "\n" not in str(caught.value)
    return caught.value.problem


def number(key: str, value: float, kind: int = U32) -> Callable[[Parts], None]:
    return lambda parts: parts.set(f"llama.{key}", kind, value)


def text(key: str, value: bytes) -> Callable[[Parts], None]:
    return lambda parts: parts.set(key, STRING, value)


def numbers(key: str, values: list[int]) -> Callable[[Parts], None]:
    return lambda parts: parts.set(f"llama.{key}", ARRAY, values, U32)


def both(*changes: Callable[[Parts], None]) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        for each in changes:
            each(parts)

    return change


HYPERPARAMETERS: dict[str, tuple[Callable[[Parts], None], str]] = {
    "no layers": (number("block_count", 0), "block_count is 0"),
    "too many layers": (number("block_count", 513), "block_count is 513"),
    "layers as text": (text("llama.block_count", b"2"), "block_count is no number"),
    "no width": (number("embedding_length", 0), "embedding_length is 0"),
    "no context": (number("context_length", 0), "context_length is 0"),
    "nothing stated": (lambda p: p.drop("llama.block_count"), "llama.block_count is missing"),
    "only layers to guess": (number("nextn_predict_layers", 2), "nextn_predict_layers is 2"),
    "no heads": (number("attention.head_count", 0), "no attention heads"),
    "heads that do not divide": (number("attention.head_count", 3), "cannot share 2"),
    "more keys than heads": (number("attention.head_count_kv", 8), "cannot share 8"),
    "a head too few in a list": (numbers("attention.head_count", [4]), "1 values for 2 layers"),
    "keys longer than values": (number("attention.key_length", 32), "keys of 32"),
    "odd rotation": (number("rope.dimension_count", 15), "rope.dimension_count is 15"),
    "rotation beyond the head": (number("rope.dimension_count", 64), "rope.dimension_count is 64"),
    "an unknown scaling": (text("llama.rope.scaling.type", b"x"), "rope.scaling.type is 'x'"),
    "a window without end": (
        number("attention.sliding_window", 2**31 - 1),
        "sliding_window is 2147483647",
    ),
    "an epsilon below zero": (number("attention.layer_norm_rms_epsilon", -1, F32), "is -1"),
    "no number at all": (number("rope.freq_base", float("nan"), F32), "rope.freq_base is nan"),
    "unheard-of pooling": (number("pooling_type", 77), "pooling_type is 77"),
    "wider out than in": (number("embedding_length_out", 255), "embedding_length_out is 255"),
    "more experts than can be": (number("expert_count", 5000), "expert_count is 5000"),
    "experts that nobody uses": (number("expert_count", 4), "none of 4 experts"),
    "used experts that are not": (number("expert_used_count", 2), "2 experts are used of 0"),
    "as many groups as experts": (
        both(
            number("expert_count", 4),
            number("expert_used_count", 2),
            number("expert_group_count", 4),
        ),
        "4 experts are in 4 groups",
    ),
    "groups that do not divide": (
        both(
            number("expert_count", 8),
            number("expert_used_count", 2),
            number("expert_group_count", 3),
        ),
        "groups of 8 experts",
    ),
}


@pytest.mark.parametrize("title", sorted(HYPERPARAMETERS))
def test_hyperparameters_that_cannot_be_are_refused(
    title: str, sound: Parts, tmp_path: Path
) -> None:
    change, problem = HYPERPARAMETERS[title]
    parts = copy.deepcopy(sound)
    change(parts)
    assert problem in problem_of(parts, tmp_path)


def vocabulary(**changes: object) -> Callable[[Parts], None]:
    """Tokens by their number, as bytes."""

    def change(parts: Parts) -> None:
        pair = parts.pair(TOKENS)
        pair.value = [*pair.value]
        for name, value in changes.items():
            pair.value[int(name.removeprefix("token_"))] = value

    return change


VOCABULARIES: dict[str, tuple[Callable[[Parts], None], str]] = {
    "a token twice": (vocabulary(token_7=b"!"), "are both '!'"),
    "a token twice, up to a zero byte": (vocabulary(token_7=b"!\0x"), "are both '!'"),
    "a token named like an empty one": (
        vocabulary(token_7=b"", token_8=b"[EMPTY_7]"),
        "are both '[EMPTY_7]'",
    ),
    "no tokens": (lambda p: p.set(TOKENS, ARRAY, [], STRING), "it has no tokens"),
    "no list of tokens": (lambda p: p.drop(TOKENS), "tokens is missing"),
    "tokens as numbers": (lambda p: p.set(TOKENS, ARRAY, [1] * 259, U32), "are no texts"),
    "one token": (lambda p: p.set(TOKENS, STRING, b"a"), "is no list"),
    "no model": (lambda p: p.drop("tokenizer.ggml.model"), "tokenizer.ggml.model is missing"),
    "no tokenizer": (text("tokenizer.ggml.model", b"none"), "has no tokenizer"),
    "types that run out": (
        lambda p: p.set("tokenizer.ggml.token_type", ARRAY, [1] * 9, I32),
        "9 of tokenizer.ggml.token_type for 259 tokens",
    ),
    "more tokens than rows": (
        lambda p: p.pair(TOKENS).value.append(b"more") or _more_types(p),
        "260 tokens with 259 rows",
    ),
    "a space that cannot be written": (text("tokenizer.ggml.model", b"llama"), "for a space"),
    "bos around every text, and none": (
        both(
            lambda p: p.set("tokenizer.ggml.add_bos_token", BOOL, 1),
            text("tokenizer.ggml.model", b"t5"),
            lambda p: p.drop("tokenizer.ggml.bos_token_id"),
        ),
        "bos_token_id is missing",
    ),
    "a byte in WordPiece": (
        both(
            text("tokenizer.ggml.model", b"bert"),
            lambda p: p.set("tokenizer.ggml.token_type", ARRAY, [6] * 259, I32),
        ),
        "has byte tokens",
    ),
    "RWKV without single bytes": (
        both(text("tokenizer.ggml.model", b"rwkv"), vocabulary(token_0=b"xy", token_87=b"zz")),
        "is no token by itself",
    ),
    "a template of megabytes": (
        text("tokenizer.chat_template", b"x" * 2_000_000),
        "chat template of 2000000 characters",
    ),
    "normalizations that lead outside": (
        lambda p: p.set(
            "tokenizer.ggml.precompiled_charsmap",
            ARRAY,
            [4, 0, 0, 0, 255, 255, 255, 127, 0],
            0,
        ),
        "points outside of itself",
    ),
    "normalizations cut off": (
        lambda p: p.set(
            "tokenizer.ggml.precompiled_charsmap", ARRAY, [255, 0, 0, 0, 1, 0, 0, 0], 0
        ),
        "precompiled_charsmap is damaged",
    ),
}


def _more_types(parts: Parts) -> None:
    parts.pair("tokenizer.ggml.token_type").value.append(1)


@pytest.mark.parametrize("title", sorted(VOCABULARIES))
def test_vocabularies_that_llama_cpp_cannot_read_are_refused(
    title: str, sound: Parts, tmp_path: Path
) -> None:
    change, problem = VOCABULARIES[title]
    parts = copy.deepcopy(sound)
    change(parts)
    assert problem in problem_of(parts, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("output_norm.weight", "F16", "is F16, but must be F32"),
        ("blk.0.attn_norm.weight", "Q8_0", "is Q8_0, but must be F32"),
        ("blk.0.attn_q.weight", "I32", "is I32, which is not for weights"),
        ("token_embd.weight", "F64", "is F64, which is not for weights"),
    ],
)
def test_tensors_in_types_without_arithmetic_are_refused(
    name: str, kind: str, problem: str, sound: Parts, tmp_path: Path
) -> None:
    parts = copy.deepcopy(sound)
    tensor = parts.tensor(name)
    tensor.type = next(t.id for t in TYPES_BY_ID.values() if t.name == kind)
    tensor.refill()
    assert f"{name} {problem}" in problem_of(parts, tmp_path)


def test_a_layer_without_keys_is_refused(sound: Parts, tmp_path: Path) -> None:
    parts = copy.deepcopy(sound)
    parts.tensors.remove(parts.tensor("blk.1.attn_k.weight"))
    assert "blk.1 has no attn_q, attn_k, attn_v" in problem_of(parts, tmp_path)


def test_a_tensor_of_nothing_is_refused(sound: Parts, tmp_path: Path) -> None:
    parts = copy.deepcopy(sound)
    parts.tensors.append(Tensor(b"rope_freqs.weight", [0], 0, b""))
    path = parts.write(tmp_path / "m.gguf")
    with pytest.raises(ModelFileError, match=r"rope_freqs\.weight is empty"):
        read_header(path)


def test_tensors_at_odd_places_are_refused(sound: Parts, tmp_path: Path) -> None:
    parts = copy.deepcopy(sound)
    parts.set("general.alignment", U32, 8)
    parts.set("general.name", STRING, b"x")
    path = parts.write(tmp_path / "m.gguf")
    for length in range(32):
        parts.set("general.name", STRING, b"x" * length)
        path = parts.write(tmp_path / "m.gguf")
        if read_header(path).data_offset % 32:
            break
    with pytest.raises(ModelFileError, match="tensors at odd places"):
        plan_load(read_header(path), EngineOptions(n_ctx=64))


def test_what_a_refusal_quotes_is_printable_and_short(sound: Parts, tmp_path: Path) -> None:
    parts = copy.deepcopy(sound)
    parts.set("llama.rope.scaling.type", STRING, b"\x1b[2J\n" + b"x" * 9000)
    problem = problem_of(parts, tmp_path)
    assert problem.isprintable()
    assert len(problem) <= 500


def test_a_sound_file_passes(sound: Parts, tmp_path: Path) -> None:
    path = sound.write(tmp_path / "model.gguf")
    assert plan_load(read_header(path), EngineOptions(n_ctx=64)).plan.n_total == 3


@pytest.mark.parametrize("whole", [True, False])
def test_sentencepiece_with_and_without_byte_tokens_passes(whole: bool, tmp_path: Path) -> None:
    shape = TinyLlama(vocab=sentencepiece(byte_tokens=whole))
    path = write_tiny_llama(tmp_path / "model.gguf", shape)
    plan_load(read_header(path), EngineOptions(n_ctx=64))


@pytest.mark.parametrize("kind", [t.name for t in TYPES_BY_ID.values() if t.name[0] not in "I"])
def test_weights_in_each_quantization_type_pass(kind: str, sound: Parts, tmp_path: Path) -> None:
    if kind == "F64":
        pytest.skip("no weights are in it, and ggml cannot multiply by it")
    parts = copy.deepcopy(sound)
    found = next(t for t in TYPES_BY_ID.values() if t.name == kind)
    tensor = parts.tensor("blk.0.ffn_down.weight")
    tensor.type, tensor.shape = found.id, [max(128, found.block_size), 64]
    tensor.refill()
    path = parts.write(tmp_path / "model.gguf")
    from mofa_gguf.engine.files.check import check_contents

    check_contents((read_header(path),))


def test_an_unknown_architecture_is_unsupported_and_named(sound: Parts, tmp_path: Path) -> None:
    from mofa_gguf.engine.engine import Engine

    parts = copy.deepcopy(sound)
    for pair in parts.pairs:
        pair.key = pair.key.replace(b"llama.", b"newest.", 1)
    parts.pair("general.architecture").value = b"newest"
    path = parts.write(tmp_path / "model.gguf")
    with pytest.raises(UnsupportedModel, match="cannot run the architecture 'newest'") as caught:
        Engine.load(path, EngineOptions(n_ctx=64, n_threads=1))
    assert caught.value.architecture == "newest"


def test_the_architectures_that_are_told_apart_are_those_of_the_installed_llama_cpp() -> None:
    """Each name stands in its library; the package gguf and our list of newer ones have them all.

    Those that are no language models (``kinds``) are refused before.
    """
    folder = Path(str(llama().__file__)).parent / "lib"
    library = b"".join(path.read_bytes() for path in sorted(folder.glob("*llama.*")))
    ours = {*MODEL_ARCH_NAMES.values(), *known.NEWER}
    assert not known.NEWER & set(MODEL_ARCH_NAMES.values())
    unknown = [name for name in ours if name.encode() + b"\0" not in library]
    assert unknown == []
    groups = (known.ARCHITECTURES, known.HEADS_OF_ONE_LENGTH, known.ROTATES_ITS_HEADS_WHOLE)
    for names in (*groups, known.RECURRENT, known.MAMBA):
        assert names <= ours
