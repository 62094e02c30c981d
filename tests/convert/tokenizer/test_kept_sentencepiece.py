"""A SentencePiece model that stands alone and that llama.cpp does not match is kept whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece

from mofa_gguf.convert.tokenizer import Kept, TokenizerMismatch, Vocabulary, build_vocabulary
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.tokens.kept_sentencepiece import ADDED_KEY, MODEL_KEY, stored_pieces
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import plain, train_sentencepiece, write_json
from tests.convert.tokenizer.test_exactness import check_exact, written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """llama.cpp does not normalize for this kind of model."""
    target = tmp_path / "tokenizer"
    target.mkdir()
    train_sentencepiece(target, kind="bpe", normalization_rule_name="nmt_nfkc")
    return target


def build(folder: Path, *, n_added: int = 0, allow_mismatch: bool = True) -> Vocabulary:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    n_vocab = processor.GetPieceSize() + n_added
    return build_vocabulary(folder, config={}, n_vocab=n_vocab, allow_mismatch=allow_mismatch)


def test_the_model_is_in_the_file_and_gives_its_own_tokens(folder: Path, tmp_path: Path) -> None:
    vocabulary = build(folder)
    assert vocabulary.kept is Kept.TOKENIZER
    data = plain(vocabulary.metadata())
    assert bytes(data[MODEL_KEY]) == (folder / "tokenizer.model").read_bytes()
    assert ADDED_KEY not in data
    assert not vocabulary.agreement.complete
    assert "this package tokenizes exactly; other programs will differ" in vocabulary.warnings[-1]
    check_exact(vocabulary, tmp_path)
    with VocabFile(written(vocabulary, tmp_path), natively=True) as file:
        assert file.vocab.tokenize("ﬁne ①") != vocabulary.reference.encode("ﬁne ①")


def test_it_is_refused_all_the_same_unless_a_mismatch_is_allowed(folder: Path) -> None:
    with pytest.raises(TokenizerMismatch, match="--allow-tokenizer-mismatch"):
        build(folder, allow_mismatch=False)


def test_added_tokens_are_taken_out_of_the_text_first(folder: Path, tmp_path: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    n = processor.GetPieceSize()
    write_json(folder, "added_tokens.json", {"<mark>": n, "<mark>er": n + 1})
    vocabulary = build(folder, n_added=2)
    check_exact(vocabulary, tmp_path, ["a<mark>b ① <mark>er", "<mark><mark>", "ﬁ<mark>"])
    with VocabFile(written(vocabulary, tmp_path)) as file:
        assert file.vocab.tokenize("<mark>er")[-1] == n + 1


def test_control_tokens_come_of_a_text_only_where_they_are_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    vocabulary = build(folder)
    with VocabFile(written(vocabulary, tmp_path)) as file:
        vocab = file.vocab
        bos, eos = vocab.bos, vocab.eos
        assert not {bos, eos} & set(vocab.tokenize("<s>① a</s>"))
        parsed = vocab.tokenize("<s>① a</s>", parse_special=True)
        assert parsed == [bos, *vocabulary.reference.encode("① a"), eos]
        assert vocab.tokenize("① a", add_special=True) == [bos, *vocabulary.reference.encode("① a")]
        # Behind other text no space is put in front.
        whole = vocab.tokenize("ab ①c")
        parts = vocab.tokenize("ab")
        parts += vocab.tokenize(" ①c", continues=True)
        assert vocab.detokenize(parts) == vocab.detokenize(whole)
        assert vocab.tokenize("", continues=True) == []
        assert vocab.tokenize("\ud800") == vocab.tokenize("\ufffd")


@pytest.mark.parametrize(
    ("model", "added", "says"),
    [
        (list(b"no model"), "{}", "the sentencepiece library cannot load it"),
        ("text", "{}", "is no list of bytes"),
        ([300], "{}", "cannot be used"),
        ([], "[]", "is no list of tokens"),
        ([], '{"a": "b"}', "is no list of tokens"),
        ([], "{", "cannot be used"),
    ],
)
def test_what_is_damaged_is_named(model: object, added: str, says: str) -> None:
    with pytest.raises(ModelFileError, match=says):
        stored_pieces({MODEL_KEY: model, ADDED_KEY: added}, Path("x.gguf"))


def test_tokens_that_the_model_does_not_have_are_an_error(folder: Path, tmp_path: Path) -> None:
    vocabulary = build(folder)
    metadata = vocabulary.metadata()
    metadata.string(ADDED_KEY, '{"<far>": 100000}')
    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, metadata, pre_tokenizer="default")
    with VocabFile(path) as file, pytest.raises(Exception, match="does not have"):
        file.vocab.tokenize("a <far>")
