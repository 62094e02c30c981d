"""Published tokenizers: which pre-tokenizer is found, and how far llama.cpp agrees with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import Kept, Vocabulary, check_vocabulary
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.rare import rare_texts
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import plain

Build = Callable[..., Vocabulary]
Write = Callable[..., Path]


class Case(NamedTuple):
    """A folder of the test data and what must come of it."""

    name: str
    kind: str
    pre_tokenizer: str
    n_normalized: int = 0
    n_limited: int = 0
    kept: Kept = Kept.NOTHING
    tokenizer_json: str = "tokenizer.json"
    without: str = ""


# Decomposed accents differ wherever the tokenizer normalizes (NFC), as llama.cpp does not.
# WordPiece: Hangul after normalization; Devanagari, Bengali, Tamil lose their vowel signs.
# Mistral's tokenizer.json does not prefix a space to a text that begins with one; llama.cpp does.
# Kept besides: Falcon's punctuation of late Unicode versions, Phi 3's and RoBERTa's added tokens
# that take white space with them, T5's idea of white space.
FORM, WHOLE = Kept.NORMALIZER, Kept.TOKENIZER
CASES = [
    Case("llama-3.2-3b", "bpe", "llama-bpe"),
    Case("qwen2.5-14b-cogito", "bpe", "qwen2", n_normalized=1, kept=FORM),
    Case("smollm2", "bpe", "smollm"),
    Case("gpt-2-dialogpt-small", "bpe", "gpt-2"),
    Case("gpt-2-dialogpt-small", "bpe", "gpt-2", without="tokenizer.json"),
    Case("deepseek-coder-6.7b", "bpe", "deepseek-coder"),
    Case("falcon-40b", "bpe", "falcon", kept=WHOLE),
    Case("granite-3.1-1b-a400m", "bpe", "gpt-2"),
    Case("olmo", "bpe", "gpt-2", n_normalized=1, kept=FORM),
    Case("olmo", "bpe", "dbrx", tokenizer_json="olmo2-dolma2.tokenizer.json"),
    Case("phi-2", "bpe", "gpt-2"),
    Case("pythia-410m", "bpe", "gpt-2", n_normalized=1, kept=FORM),
    Case("roberta-base-squad2", "bpe", "gpt-2", kept=WHOLE),
    Case("starcoder-wizardcoder-15b", "bpe", "smollm"),
    Case("llama-2-7b", "spm", "default"),
    Case("llama-2-7b", "spm", "default", without="tokenizer.json"),
    Case("llama-2-7b", "spm", "default", without="tokenizer.model"),
    Case("mixtral-8x22b-wizardlm2", "spm", "default"),
    Case("mistral-7b-v0.3", "spm", "default", n_limited=2, kept=WHOLE),
    Case("mistral-7b-v0.3", "spm", "default", without="tokenizer.json"),
    Case("mistral-7b-v0.3", "spm", "default", 0, 2, WHOLE, without="tokenizer.model"),
    Case("phi-3-mini-128k", "spm", "default", kept=WHOLE),
    Case("gemma-3-27b-medgemma", "spm", "default"),
    Case("all-minilm-l6-v2", "wordpiece", "default", 1, 2, WHOLE),
    Case("bert-large-uncased", "wordpiece", "default", 1, 2, WHOLE),
    Case("t5-small", "unigram", "default", kept=WHOLE),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{c.tokenizer_json}-{c.without}")
def test_a_published_tokenizer_is_recognised_and_agrees_as_far_as_llama_cpp_can(
    case: Case, built: Build, written: Write
) -> None:
    vocabulary = built(case.name, case.tokenizer_json, case.without)

    agreement = vocabulary.agreement
    assert (vocabulary.kind, vocabulary.pre_tokenizer) == (case.kind, case.pre_tokenizer)
    assert agreement.n_texts == len(FULL)
    assert agreement.n_unexplained == 0
    assert (agreement.n_normalized, agreement.n_limited) == (case.n_normalized, case.n_limited)
    assert any("does not tokenize every text" in w for w in vocabulary.warnings) != (
        agreement.complete
    )
    assert vocabulary.kept is case.kept

    # What the metadata holds is what was measured.
    path = written(case.name, case.tokenizer_json, case.without)
    assert check_vocabulary(path, vocabulary, natively=True) == agreement
    assert check_vocabulary(path, vocabulary).complete
    with VocabFile(path) as file:
        assert file.vocab.n_tokens == vocabulary.n_tokens
        for item in rare_texts(()):
            assert file.vocab.tokenize(item.text) == vocabulary.reference.encode(item.text)


class Ends(NamedTuple):
    """Special tokens that a checkpoint's files name, in all their places."""

    name: str
    bos: int | None
    eos: int
    ends: list[int]
    add_bos: bool
    add_eos: bool = False


@pytest.mark.parametrize(
    "case",
    [
        Ends("llama-3.2-3b", 128000, 128001, [128001], True),
        Ends("qwen2.5-14b-cogito", 151643, 151645, [151645], False),
        Ends("phi-3-mini-128k", 1, 32000, [32000, 32001, 32007], False),
        Ends("gemma-3-27b-medgemma", 2, 1, [1, 106], True),
        Ends("mistral-7b-v0.3", 1, 2, [2], True),
        Ends("falcon-40b", 1, 11, [11, 2], False),
        Ends("t5-small", None, 1, [1], False, True),
        Ends("roberta-base-squad2", 0, 2, [2], True, True),
    ],
    ids=lambda case: case.name,
)
def test_special_tokens_of_a_published_tokenizer_reach_the_file_and_llama_cpp(
    case: Ends, built: Build, written: Write
) -> None:
    vocabulary = built(case.name)

    values = plain(vocabulary.metadata())
    assert values.get("tokenizer.ggml.bos_token_id") == case.bos
    assert values["tokenizer.ggml.eos_token_id"] == case.eos
    assert values["tokenizer.ggml.eos_token_ids"] == case.ends
    path = written(case.name)
    with VocabFile(path) as file:
        assert all(file.vocab.is_eog(token) for token in case.ends)
        assert (file.vocab.add_bos, file.vocab.add_eos) == (case.add_bos, case.add_eos)


PUBLISHED_CASES = [
    ("llama-bpe", "llama-3.2-3b"),
    ("qwen2", "qwen2.5-14b-cogito"),
    ("gpt-2", "gpt-2-dialogpt-small"),
    ("llama-spm", "llama-2-7b"),
    ("phi-3", "phi-3-mini-128k"),
    ("bert-bge", "all-minilm-l6-v2"),
]


@pytest.mark.parametrize(("cases", "name"), PUBLISHED_CASES)
def test_a_rebuilt_vocabulary_gives_the_token_ids_that_llama_cpp_publishes_for_it(
    cases: str, name: str, built: Build, written: Write, shared_data: Path
) -> None:
    base = shared_data / "vocab" / f"ggml-vocab-{cases}.gguf"
    texts = Path(f"{base}.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{base}.out").read_text(encoding="utf-8").split("\n")
    expected = [[int(token) for token in line.split()] for line in lines]

    path = written(name)
    with VocabFile(path) as file:
        tokenized = [file.vocab.tokenize(text) for text in texts]
        natively = [file.vocab.tokenize_natively(text) for text in texts]
    assert len(texts) > 30
    reference = built(name).reference
    assert tokenized == natively == expected[: len(texts)]
    assert tokenized == [reference.encode(text) for text in texts]


def test_a_tiktoken_rank_file_is_not_taken_for_sentencepiece(built: Build) -> None:
    with pytest.raises(TokenizerError, match=r"tiktoken rank file.*tokenizer\.json"):
        built("llama-3.2-3b", without="tokenizer.json")
