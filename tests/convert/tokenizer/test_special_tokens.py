"""Special tokens, end-of-generation ids, and what is put around a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import Vocabulary, build_vocabulary
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import plain, write_json

BEGIN, STOP, PAD = 0, 1, 2


@pytest.fixture
def folder(gpt2_like: Any, tmp_path: Path) -> Path:
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def build(folder: Path, **config: Any) -> Vocabulary:
    return build_vocabulary(folder, config=config, n_vocab=700)


def with_template(folder: Path, single: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [("<|begin|>", BEGIN), ("<|stop|>", STOP), ("<|pad|>", PAD)]
    tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))


def keys(vocabulary: Vocabulary) -> dict[str, Any]:
    prefix = "tokenizer.ggml."
    return {
        key.removeprefix(prefix): value
        for key, value in plain(vocabulary.metadata()).items()
        if key.startswith(prefix)
    }


def test_ids_come_from_names_before_numbers(folder: Path) -> None:
    names = {"bos_token": "<|begin|>", "eos_token": {"content": "<|stop|>"}, "pad_token": None}
    write_json(folder, "tokenizer_config.json", names)
    data = keys(build(folder, bos_token_id=77, eos_token_id=88, pad_token_id=PAD))
    assert (data["bos_token_id"], data["eos_token_id"]) == (BEGIN, STOP)
    assert data["padding_token_id"] == PAD
    assert data["eos_token_ids"] == [STOP, 88]


def test_special_tokens_map_names_what_tokenizer_config_does_not(folder: Path) -> None:
    write_json(folder, "special_tokens_map.json", {"eos_token": "<|stop|>"})
    assert keys(build(folder))["eos_token_id"] == STOP


def test_every_end_of_generation_id_is_kept_and_stops_llama_cpp(folder: Path) -> None:
    write_json(folder, "generation_config.json", {"eos_token_id": [STOP, 300, 301]})
    vocabulary = build(folder, eos_token_id=[STOP, 300])
    data = keys(vocabulary)
    assert data["eos_token_ids"] == [STOP, 300, 301]
    assert data["eos_token_id"] == STOP
    path = folder / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer=vocabulary.pre_tokenizer)
    with VocabFile(path) as file:
        assert [file.vocab.is_eog(token) for token in (STOP, 300, 301, 302)] == [True] * 3 + [False]


def test_more_ends_than_llama_cpp_has_keys_for_are_named_in_a_warning(folder: Path) -> None:
    write_json(folder, "generation_config.json", {"eos_token_id": [STOP, 300, 301, 302, 303]})
    vocabulary = build(folder)
    assert keys(vocabulary)["eos_token_ids"] == [STOP, 300, 301, 302, 303]
    assert any("[302, 303]" in warning for warning in vocabulary.warnings)


def test_the_text_part_of_a_multimodal_config_is_read(folder: Path) -> None:
    data = keys(build(folder, text_config={"eos_token_id": [STOP]}))
    assert data["eos_token_ids"] == [STOP]


def test_ids_outside_the_vocabulary_are_left_out(folder: Path) -> None:
    vocabulary = build(folder, eos_token_id=[STOP, 70000], pad_token_id=-1)
    data = keys(vocabulary)
    assert data["eos_token_ids"] == [STOP]
    assert "padding_token_id" not in data


def test_what_the_post_processor_adds_is_measured(folder: Path) -> None:
    with_template(folder, "<|begin|> $A <|stop|>")
    write_json(folder, "tokenizer_config.json", {"add_bos_token": False})
    vocabulary = build(folder)
    data = keys(vocabulary)
    assert (data["bos_token_id"], data["add_bos_token"]) == (BEGIN, True)
    assert (data["eos_token_id"], data["add_eos_token"]) == (STOP, True)
    path = folder / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer=vocabulary.pre_tokenizer)
    with VocabFile(path) as file:
        tokens = file.vocab.tokenize("a word", add_special=True)
    assert tokens == [BEGIN, *vocabulary.reference.encode("a word"), STOP]


def test_a_text_may_end_with_another_token_than_an_answer(folder: Path) -> None:
    with_template(folder, "$A <|pad|>")
    write_json(folder, "tokenizer_config.json", {"eos_token": "<|stop|>"})
    data = keys(build(folder))
    assert (data["eos_token_id"], data["eot_token_id"]) == (PAD, STOP)
    assert data["eos_token_ids"] == [PAD, STOP]


def test_more_than_one_token_around_a_text_is_a_warning(folder: Path) -> None:
    with_template(folder, "<|begin|> <|pad|> $A")
    warnings = build(folder).warnings
    assert any("puts 2 tokens before and 0 behind" in warning for warning in warnings)


def test_a_surrounding_token_without_embedding_is_refused(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<late>"])
    tokenizer.post_processor = TemplateProcessing(
        single="<late> $A", special_tokens=[("<late>", 700)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="has no embedding"):
        build(folder)


def test_flags_without_a_known_token_are_not_set(folder: Path) -> None:
    # llama.cpp ends the process when it shall add a token that has no id.
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    document["post_processor"] = None
    write_json(folder, "tokenizer.json", document)
    write_json(folder, "tokenizer_config.json", {"add_bos_token": True, "add_eos_token": True})
    data = keys(build(folder, eos_token_id=STOP))
    assert (data["add_bos_token"], data["add_eos_token"]) == (False, True)


@pytest.mark.parametrize(
    "config", [{"eos_token_id": "two"}, {"eos_token_id": [1.5]}, {"bos_token_id": True}]
)
def test_an_id_that_is_no_number_is_refused(folder: Path, config: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError, match="which is no id"):
        build(folder, **config)


def test_a_name_that_is_no_text_is_refused(folder: Path) -> None:
    write_json(folder, "tokenizer_config.json", {"eos_token": 5})
    with pytest.raises(TokenizerError, match="eos_token of the tokenizer's configuration"):
        build(folder)


def with_tokens(folder: Path, *texts: str) -> dict[str, int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(list(texts))
    tokenizer.save(str(folder / "tokenizer.json"))
    return {text: tokenizer.token_to_id(text) for text in texts}


def test_tokens_for_filling_in_the_middle_are_found_by_their_texts(folder: Path) -> None:
    texts = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>")
    more = ("<|repo_name|>", "<|file_sep|>")
    ids = with_tokens(folder, *texts, *more)
    vocabulary = build_vocabulary(folder, config={}, n_vocab=800)
    data = keys(vocabulary)
    roles = ("pre", "suf", "mid", "pad", "rep", "sep")
    found = {f"fim_{role}": data[f"fim_{role}_token_id"] for role in roles}
    assert list(found.values()) == [ids[text] for text in (*texts, *more)]


def test_tokens_for_filling_in_the_middle_may_be_named_in_tokenizer_config(folder: Path) -> None:
    ids = with_tokens(folder, "<before>", "<after>", "<between>")
    names = {"prefix_token": "<before>", "suffix_token": {"content": "<after>"}}
    write_json(folder, "tokenizer_config.json", {**names, "middle_token": "<between>"})
    data = keys(build_vocabulary(folder, config={}, n_vocab=800))
    found = [data[f"fim_{role}_token_id"] for role in ("pre", "suf", "mid")]
    assert found == list(ids.values())


def test_a_prefix_without_a_middle_is_no_filling_in(folder: Path) -> None:
    with_tokens(folder, "<PRE>", "<SUF>", "<|file_sep|>")
    data = keys(build_vocabulary(folder, config={}, n_vocab=800))
    assert not [key for key in data if key.startswith("fim_")]


@pytest.mark.parametrize("role", ["sep", "pad", "cls", "mask", "unk"])
def test_every_role_reaches_its_key(folder: Path, role: str) -> None:
    ids = with_tokens(folder, "<role>")
    write_json(folder, "tokenizer_config.json", {f"{role}_token": "<role>"})
    name = {"sep": "seperator", "pad": "padding", "unk": "unknown"}.get(role, role)
    data = keys(build_vocabulary(folder, config={}, n_vocab=800))
    assert data[f"{name}_token_id"] == ids["<role>"]
