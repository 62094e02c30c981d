"""Broken tokenizer files: one typed error, one sentence, no crash."""

from __future__ import annotations

import base64
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import build_vocabulary
from mofa_gguf.convert.tokenizer.charsmap import check_charsmap
from mofa_gguf.convert.tokenizer.sentencepiece_model import parse_sentencepiece
from tests.convert.tokenizer.makers import write_json


def build(folder: Path, **more: Any) -> Any:
    return build_vocabulary(folder, config={}, n_vocab=700, **more)


def test_a_folder_without_a_tokenizer_is_told_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json, tekken\.json, .*vocab\.txt"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b"\xff\xff", "is not UTF-8"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"{}", "model is missing"),
        (b'{"model": {"type": "Neural"}}', "type 'Neural' cannot be expressed"),
        (b'{"model": {}}', "model.type is missing"),
    ],
)
def test_a_tokenizer_json_that_is_none_is_refused(
    content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=problem):
        build(tmp_path)


def set_in(document: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        document = document[key]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.vocab", []),
        ("model.vocab", {"a": -1}),
        ("model.vocab", {"a": 10**15}),
        ("model.vocab", {"a": "1"}),
        ("model.merges", "a b"),
        ("model.merges", ["a b c"]),
        ("model.merges", [["a"]]),
        ("model.merges", [["a", 1]]),
        ("model.merges", [["never", "seen"]]),
        ("model.end_of_word_suffix", "</w>"),
        ("added_tokens", {"a": 1}),
        ("added_tokens", [{"id": -5, "content": "x"}]),
        ("added_tokens", [{"id": 5}]),
        ("added_tokens", ["x"]),
        ("normalizer", 5),
        ("normalizer", {"type": "Sequence"}),
        ("normalizer", {"type": "Unheard"}),
        ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}),
        ("pre_tokenizer", None),
        ("post_processor", {"type": "TemplateProcessing", "single": "x"}),
    ],
)
def test_a_wrong_value_in_tokenizer_json_is_refused(
    path: str, value: Any, gpt2_like: Any, tmp_path: Path
) -> None:
    document = json.loads(gpt2_like.to_str())
    set_in(document, path, value)
    write_json(tmp_path, "tokenizer.json", document)
    with pytest.raises(TokenizerError) as caught:
        build(tmp_path)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("n_vocab", [0, -1, 10**12])
def test_an_impossible_size_is_refused(n_vocab: int, gpt2_like: Any, tmp_path: Path) -> None:
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="outside what can be"):
        build_vocabulary(tmp_path, config={}, n_vocab=n_vocab)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
def test_a_broken_configuration_beside_a_sound_tokenizer_is_refused(
    name: str, gpt2_like: Any, tmp_path: Path
) -> None:
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / name).write_text('{"a": ', encoding="utf-8")
    with pytest.raises(TokenizerError, match=name):
        build(tmp_path)


def test_a_tokenizer_larger_than_any_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(TokenizerError, match=r"more than a tokenizer\.json may have"):
        build(tmp_path)


def test_added_tokens_decoder_with_a_wrong_id_is_refused(llama_like: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes((llama_like / "tokenizer.model").read_bytes())
    decoder = {"added_tokens_decoder": {"first": {"content": "x"}}}
    write_json(tmp_path, "tokenizer_config.json", decoder)
    with pytest.raises(TokenizerError, match="impossible id 'first'"):
        build(tmp_path)


# Values that JSON can hold, of every type, sized to stay quick.
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
)


def mutate(value: Any, choose: Callable[[int], int], leaf: Any, depth: int = 0) -> Any:
    """Replace, drop or double one part of a JSON value, found by walking down at random."""
    if isinstance(value, dict) and value and choose(8) > 0:
        key = list(value)[choose(len(value))]
        if choose(12) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutate(value[key], choose, leaf, depth + 1)}
    if isinstance(value, list) and value and choose(8) > 0:
        at = choose(len(value))
        if choose(12) == 0:
            return [*value[:at], *value[at:][:1], *value[at:]]
        return [*value[:at], mutate(value[at], choose, leaf, depth + 1), *value[at + 1 :]]
    return leaf if depth else value


def check_mutations(
    base: dict[str, Any], data: st.DataObject, name: str, files: Any = None
) -> None:
    changed = copy.deepcopy(base)
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        leaf = data.draw(LEAVES, label="leaf")
        changed = mutate(changed, lambda n: data.draw(st.integers(0, n - 1)), leaf)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for other, content in (files or {}).items():
            (folder / other).write_bytes(content)
        write_json(folder, name, changed)
        try:
            build(folder, allow_mismatch=True)
        except TokenizerError as error:
            assert str(error)


FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(data=st.data())
def test_a_mutated_byte_level_tokenizer_raises_nothing_but_tokenizer_error(
    gpt2_like: Any, data: st.DataObject
) -> None:
    check_mutations(json.loads(gpt2_like.to_str()), data, "tokenizer.json")


@FUZZ
@given(data=st.data())
def test_a_mutated_wordpiece_tokenizer_raises_nothing_but_tokenizer_error(
    bert_like: Any, data: st.DataObject
) -> None:
    check_mutations(json.loads(bert_like.to_str()), data, "tokenizer.json")


@settings(FUZZ, max_examples=25)
@given(data=st.data())
def test_a_mutated_configuration_raises_nothing_but_tokenizer_error(
    gpt2_like: Any, data: st.DataObject
) -> None:
    config = {
        "bos_token": "<|begin|>",
        "eos_token": {"content": "<|stop|>"},
        "add_bos_token": True,
        "chat_template": [{"name": "default", "template": "x"}],
        "tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {"1": {"content": "<|stop|>", "special": True}},
    }
    files = {"tokenizer.json": gpt2_like.to_str().encode()}
    check_mutations(config, data, "tokenizer_config.json", files)


@settings(FUZZ, max_examples=80)
@given(at=st.integers(0, 10**6), new=st.binary(max_size=6), cut=st.integers(0, 12))
def test_a_damaged_sentencepiece_model_raises_nothing_but_tokenizer_error(
    llama_like: Path, at: int, new: bytes, cut: int
) -> None:
    data = (llama_like / "tokenizer.model").read_bytes()
    at %= len(data)
    damaged = data[:at] + new + data[at + cut :]
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / "tokenizer.model").write_bytes(damaged)
        try:
            build(Path(temporary), allow_mismatch=True)
        except TokenizerError as error:
            assert str(error)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_sentencepiece_model_or_a_parsed_one(data: bytes) -> None:
    try:
        model = parse_sentencepiece(data, "tokenizer.model")
    except TokenizerError:
        return
    assert model.pieces


@given(st.binary(max_size=64))
def test_random_bytes_are_no_character_map(data: bytes) -> None:
    with pytest.raises(TokenizerError):
        check_charsmap(data, base64.b64encode(data).decode())
