"""tekken.json, where that is the only tokenizer."""

from __future__ import annotations

import copy
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import Kept, TokenType, build_vocabulary, check_vocabulary
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import plain, tekken, write_json

N_SPECIAL = 24


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Made once: bytes and 300 merged tokens behind 24 special ones."""
    return tekken(n_merged=300, n_special=N_SPECIAL)


def as_tiktoken(document: dict[str, Any], word: bytes) -> list[int]:
    """tiktoken's algorithm: of all neighbours, those whose joined bytes have the lowest rank."""
    ranks = {b64decode(entry["token_bytes"]): entry["rank"] for entry in document["vocab"]}
    parts = [bytes([byte]) for byte in word]
    while len(parts) > 1:
        joined = [ranks.get(parts[i] + parts[i + 1], 10**9) for i in range(len(parts) - 1)]
        at = joined.index(min(joined))
        if joined[at] == 10**9:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] + N_SPECIAL for part in parts]


def test_a_tekken_json_alone_is_a_tokenizer(document: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path, "tekken.json", document)
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=N_SPECIAL + 556)
    assert (vocabulary.kind, vocabulary.pre_tokenizer) == ("bpe", "tekken")
    data = plain(vocabulary.metadata())
    assert data["tokenizer.ggml.tokens"][:4] == ["<unk>", "<s>", "</s>", "[INST]"]
    assert data["tokenizer.ggml.tokens"][20:25] == [
        *("<SPECIAL_20>", "<SPECIAL_21>", "<SPECIAL_22>", "<SPECIAL_23>"),
        "\u0100",  # the byte 0, as byte-level vocabularies spell it
    ]
    assert data["tokenizer.ggml.token_type"][:N_SPECIAL] == [TokenType.CONTROL] * N_SPECIAL
    roles = ("bos", "eos", "unknown", "padding", "fim_pre", "fim_mid", "fim_suf")
    assert [data[f"tokenizer.ggml.{role}_token_id"] for role in roles] == [1, 2, 0, 11, 14, 15, 16]
    assert data["tokenizer.ggml.add_bos_token"] is True
    assert data["tokenizer.ggml.eos_token_ids"] == [2]

    # llama.cpp leaves combining marks out of its classes of letters.
    assert vocabulary.kept is Kept.TOKENIZER
    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer="tekken")
    assert check_vocabulary(path, vocabulary).complete


def test_words_are_merged_as_tiktoken_merges_them(document: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path, "tekken.json", document)
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=N_SPECIAL + 556)
    words = {word for item in FULL for word in item.text.split() if word.isalpha()}
    lower = sorted(word for word in words if word.islower())
    assert len(lower) > 60
    for word in lower:
        assert vocabulary.reference.encode(word) == as_tiktoken(document, word.encode()), word


def test_listed_special_tokens_have_their_names(tmp_path: Path) -> None:
    write_json(tmp_path, "tekken.json", tekken(n_merged=20, n_special=8, listed=True))
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=284)
    tokens = plain(vocabulary.metadata())["tokenizer.ggml.tokens"]
    assert tokens[:6] == ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<SPECIAL_5>"]


def test_tokens_beyond_the_size_in_use_are_left_out(tmp_path: Path) -> None:
    document = tekken(n_merged=20, n_special=8)
    document["config"]["default_vocab_size"] -= 5
    write_json(tmp_path, "tekken.json", document)
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=279)
    assert vocabulary.n_tokens == len(plain(vocabulary.metadata())["tokenizer.ggml.tokens"]) == 279


def test_a_tokenizer_json_beside_it_is_taken_first(
    document: dict[str, Any], gpt2_like: Any, tmp_path: Path
) -> None:
    write_json(tmp_path, "tekken.json", document)
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=700)
    assert vocabulary.pre_tokenizer == "gpt-2"


def test_a_prompt_is_read_with_its_control_tokens(document: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path, "tekken.json", document)
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=N_SPECIAL + 556)
    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer="tekken")
    with VocabFile(path) as file:
        tokens = file.vocab.tokenize("<s>[INST] hi[/INST]", parse_special=True)
        literal = file.vocab.tokenize("[INST]")
    assert (tokens[:2], tokens[-1]) == ([1, 3], 4)
    assert min(literal) >= N_SPECIAL


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("config", None, "config.pattern"),
        ("config.pattern", 5, "config.pattern"),
        ("config.default_vocab_size", "many", "no number of tokens"),
        ("config.default_vocab_size", 10**12, "no number of tokens"),
        ("config.default_vocab_size", 3, "24 special tokens of 3"),
        ("config.default_num_special_tokens", -1, "no number of tokens"),
        ("config.pattern", "(", "cannot load it"),
        ("vocab", {}, "vocab is no list"),
        ("vocab", [], "vocab is no list"),
        ("vocab.3", {"rank": 7, "token_bytes": "AA=="}, "no token of rank 3"),
        ("vocab.3", "x", "no token of rank 3"),
        ("vocab.3.token_bytes", "%", "is not base64"),
        ("vocab.3.token_bytes", None, "is not base64"),
        ("vocab.3.token_bytes", "", "has 0 bytes"),
        ("vocab.3.token_bytes", "YWE=", "no token stands for the byte 3"),
        ("vocab.300.token_bytes", "AA==", "a token stands in it twice"),
        ("special_tokens", 5, "special_tokens is no list"),
        ("special_tokens", [{"rank": 99, "token_str": "x"}], "is no special token"),
        ("special_tokens", [{"rank": 0}], "is no special token"),
    ],
)
def test_a_wrong_value_is_refused(
    document: dict[str, Any], tmp_path: Path, path: str, value: Any, problem: str
) -> None:
    changed: Any = copy.deepcopy(document)
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    place = changed
    for key in parents:
        place = place[key]
    place[last] = value
    write_json(tmp_path, "tekken.json", changed)
    with pytest.raises(TokenizerError, match=problem):
        build_vocabulary(tmp_path, config={}, n_vocab=N_SPECIAL + 556)


def test_the_document_made_of_it_is_json(document: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path, "tekken.json", document)
    data = plain(build_vocabulary(tmp_path, config={}, n_vocab=580).metadata())
    assert json.loads(data["tokenizer.huggingface.json"])["model"]["ignore_merges"] is True
