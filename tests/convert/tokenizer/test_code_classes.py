"""vocab.json with merges.txt, whose splitting the tokenizer's class says in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers, pre_tokenizers

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import Kept, build_vocabulary, check_vocabulary
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from tests.convert.tokenizer.makers import (
    QWEN2,
    by_regex,
    gpt2_splitting,
    train_byte_level,
    write_json,
)


def digits() -> Any:
    """Cohere's: every digit alone."""
    return gpt2_splitting(digits=True)


CLASSES = [
    ("GPT2Tokenizer", gpt2_splitting(), None, "gpt-2"),
    ("CodeGenTokenizerFast", gpt2_splitting(), None, "gpt-2"),
    ("GPTNeoXTokenizer", gpt2_splitting(), normalizers.NFC(), "gpt-2"),
    ("CohereTokenizerFast", digits(), normalizers.NFC(), "smollm"),
    ("Qwen2Tokenizer", by_regex(QWEN2), normalizers.NFC(), "qwen2"),
    (
        "Qwen3_5Tokenizer",
        by_regex(
            QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(
                r"[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{M}\p{N}]+"
            )
        ),
        normalizers.NFC(),
        "qwen35",
    ),
]


@pytest.mark.parametrize(
    ("name", "splitting", "normalizer", "pre"), CLASSES, ids=[case[0] for case in CLASSES]
)
def test_vocab_and_merges_of_a_known_class_are_read_as_its_code_says(
    name: str, splitting: Any, normalizer: Any, pre: str, tmp_path: Path
) -> None:
    tokenizer = train_byte_level(splitting, normalizer=normalizer)
    tokenizer.model.save(str(tmp_path))
    write_json(tmp_path, "tokenizer_config.json", {"tokenizer_class": name})
    rows = tokenizer.get_vocab_size()
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=rows)
    assert vocabulary.pre_tokenizer == pre
    assert vocabulary.kept is (Kept.NOTHING if normalizer is None else Kept.NORMALIZER)
    for item in FULL:
        expected = tokenizer.encode(item.text, add_special_tokens=False).ids
        assert vocabulary.reference.encode(item.text) == expected
    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer=pre)
    assert check_vocabulary(path, vocabulary).complete


def test_added_tokens_beside_them_are_found(tmp_path: Path) -> None:
    tokenizer = train_byte_level(by_regex(QWEN2), normalizer=normalizers.NFC())
    tokenizer.model.save(str(tmp_path))
    rows = tokenizer.get_vocab_size()
    write_json(tmp_path, "added_tokens.json", {"<|im_end|>": rows + 1, "<think>": rows})
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}
    write_json(tmp_path, "tokenizer_config.json", config)
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=rows + 2)
    eos = vocabulary.metadata().get("tokenizer.ggml.eos_token_id")
    assert eos is not None
    assert eos.data == rows + 1
    assert vocabulary.reference.encode("so <think>")[-1] == rows


def test_a_class_that_nobody_knows_is_refused_with_those_that_are_known(
    gpt2_like: Any, tmp_path: Path
) -> None:
    gpt2_like.model.save(str(tmp_path))
    write_json(tmp_path, "tokenizer_config.json", {"tokenizer_class": "MyOwnTokenizer"})
    with pytest.raises(TokenizerError, match=r"MyOwnTokenizer.*Qwen2Tokenizer.*tokenizer\.json"):
        build_vocabulary(tmp_path, config={}, n_vocab=gpt2_like.get_vocab_size())


def test_a_splitting_by_digits_is_no_string_of_steps(tmp_path: Path) -> None:
    # What the classes' steps rely on: a Digits step leaves the rest to GPT-2's expression.
    one = train_byte_level(digits())
    pieces = [word for word, _ in one.pre_tokenizer.pre_tokenize_str("a 12b's")]
    assert pieces == ["a", "\u0120", "1", "2", "b", "'s"]
    assert isinstance(one.pre_tokenizer, pre_tokenizers.Sequence)
