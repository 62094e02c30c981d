"""SentencePiece vocabularies, as tokenizer.model, beside a tokenizer.json, or only as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import TokenType, build_vocabulary
from mofa_gguf.convert.tokenizer.sentencepiece_model import ModelType, parse_sentencepiece
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import (
    as_hugging_face,
    plain,
    train_sentencepiece,
    unigram_json,
    write_json,
)


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copyfile(folder / "tokenizer.model", target / "tokenizer.model")
    return target


def test_a_sentencepiece_bpe_model_keeps_its_scores_and_types(
    llama_like: Path, tmp_path: Path
) -> None:
    folder = copy_of(llama_like, tmp_path)
    vocabulary = build_vocabulary(folder, config={}, n_vocab=704)
    data = plain(vocabulary.metadata())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))

    assert (vocabulary.kind, vocabulary.pre_tokenizer) == ("spm", "default")
    assert vocabulary.agreement.complete
    assert data["tokenizer.ggml.model"] == "llama"
    n = processor.GetPieceSize()
    assert data["tokenizer.ggml.tokens"][:n] == [processor.IdToPiece(i) for i in range(n)]
    assert data["tokenizer.ggml.scores"][:n] == [processor.GetScore(i) for i in range(n)]
    types = data["tokenizer.ggml.token_type"]
    assert types[:3] == [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    assert types.count(TokenType.BYTE) == 256
    assert types[n:] == [TokenType.UNUSED] * 4
    ids = [data[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "unknown")]
    assert ids == [1, 2, 0]
    assert data["tokenizer.ggml.add_space_prefix"] is True
    assert data["tokenizer.ggml.add_bos_token"] is True


def test_flags_of_tokenizer_config_decide_where_no_post_processor_does(
    llama_like: Path, tmp_path: Path
) -> None:
    folder = copy_of(llama_like, tmp_path)
    flags = {"add_bos_token": False, "add_eos_token": True}
    write_json(folder, "tokenizer_config.json", flags)
    data = plain(build_vocabulary(folder, config={}, n_vocab=700).metadata())
    assert data["tokenizer.ggml.add_bos_token"] is False
    assert data["tokenizer.ggml.add_eos_token"] is True


def test_added_tokens_of_a_model_without_tokenizer_json_are_gathered_from_the_other_files(
    llama_like: Path, tmp_path: Path
) -> None:
    folder = copy_of(llama_like, tmp_path)
    write_json(folder, "added_tokens.json", {"<|user|>": 700, "▁▁▁▁": 701})
    decoder = {"700": {"content": "<|user|>", "special": True}}
    write_json(folder, "tokenizer_config.json", {"added_tokens_decoder": decoder})
    vocabulary = build_vocabulary(folder, config={}, n_vocab=704)
    data = plain(vocabulary.metadata())
    assert data["tokenizer.ggml.tokens"][700:703] == ["<|user|>", "    ", "[PAD702]"]
    types = data["tokenizer.ggml.token_type"][700:702]
    assert types == [TokenType.CONTROL, TokenType.USER_DEFINED]
    assert vocabulary.agreement.complete
    assert vocabulary.reference.encode("a    b").count(701) == 1


@pytest.mark.parametrize("metaspace", [False, True], ids=["prepend", "metaspace"])
@pytest.mark.parametrize("prefix", [False, True], ids=["bare", "prefixed"])
def test_a_tokenizer_json_alone_gives_the_scores_back_from_its_merges(
    llama_like: Path, tmp_path: Path, metaspace: bool, prefix: bool
) -> None:
    tokenizer = as_hugging_face(llama_like, metaspace=metaspace, prefix=prefix)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=700)
    data = plain(vocabulary.metadata())
    assert vocabulary.kind == "spm"
    assert data["tokenizer.ggml.add_space_prefix"] is prefix
    agreement = vocabulary.agreement
    # A Metaspace adds no space to a text that begins with one; llama.cpp always does.
    assert agreement.n_limited == (2 if metaspace and prefix else 0)
    assert agreement.n_agree + agreement.n_limited == agreement.n_texts


def test_beside_a_tokenizer_json_the_model_gives_the_scores(
    llama_like: Path, tmp_path: Path
) -> None:
    folder = copy_of(llama_like, tmp_path)
    tokenizer = as_hugging_face(llama_like, metaspace=False)
    tokenizer.add_tokens([AddedToken("▁two▁words▁", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = build_vocabulary(folder, config={}, n_vocab=701)
    scores = plain(vocabulary.metadata())["tokenizer.ggml.scores"]
    model = parse_sentencepiece((folder / "tokenizer.model").read_bytes(), "tokenizer.model")
    assert scores[3:700] == [piece.score for piece in model.pieces[3:]]
    assert plain(vocabulary.metadata())["tokenizer.ggml.tokens"][700] == " two words "
    assert vocabulary.agreement.complete


def test_bpe_without_byte_tokens_is_refused_because_llama_cpp_would_end_the_process(
    tmp_path: Path,
) -> None:
    train_sentencepiece(tmp_path, kind="bpe", byte_fallback=False)
    with pytest.raises(TokenizerError, match="has no byte tokens"):
        build_vocabulary(tmp_path, config={}, n_vocab=700)


def test_a_word_model_is_refused_by_name(tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, kind="word", byte_fallback=False, hard_vocab_limit=False)
    with pytest.raises(TokenizerError, match="of type word cannot be expressed"):
        build_vocabulary(tmp_path, config={}, n_vocab=700)


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model"])
def test_a_unigram_model_becomes_llama_cpps_t5(name: str, tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, kind="unigram", name=name, pad_id=3)
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=700)
    data = plain(vocabulary.metadata())
    assert (vocabulary.kind, data["tokenizer.ggml.model"]) == ("unigram", "t5")
    assert vocabulary.agreement.complete
    assert data["tokenizer.ggml.remove_extra_whitespaces"] is True
    assert data["tokenizer.ggml.padding_token_id"] == 3
    assert data["tokenizer.ggml.add_eos_token"] is True
    model = parse_sentencepiece((tmp_path / name).read_bytes(), name)
    assert data["tokenizer.ggml.precompiled_charsmap"] == model.precompiled_charsmap != b""


@pytest.mark.parametrize("score", [10**400, -(10**400), 1e300, "0", True, None])
def test_a_unigram_score_that_is_no_sensible_number_is_refused(
    score: object, tmp_path: Path
) -> None:
    document = json.loads(unigram_json(tmp_path))
    document["model"]["vocab"][5][1] = score
    write_json(tmp_path, "tokenizer.json", document)
    with pytest.raises(TokenizerError, match=r"is no token with a score|cannot load it"):
        build_vocabulary(tmp_path, config={}, n_vocab=700)


def test_a_unigram_tokenizer_json_is_read_like_its_model(tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, kind="unigram")
    model = parse_sentencepiece((tmp_path / "tokenizer.model").read_bytes(), "tokenizer.model")
    from_model = plain(build_vocabulary(tmp_path, config={}, n_vocab=700).metadata())
    (tmp_path / "tokenizer.model").unlink()

    tokenizer = Tokenizer(models.Unigram([(p.text, p.score) for p in model.pieces], 0, False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(model.precompiled_charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=700)
    from_json = plain(vocabulary.metadata())
    assert vocabulary.agreement.complete
    for key in ("tokens", "token_type", "precompiled_charsmap", "remove_extra_whitespaces"):
        assert from_json[f"tokenizer.ggml.{key}"] == from_model[f"tokenizer.ggml.{key}"]


def test_a_damaged_character_map_is_refused_before_llama_cpp_walks_it(tmp_path: Path) -> None:
    train_sentencepiece(tmp_path, kind="unigram")
    path = tmp_path / "tokenizer.model"
    data = path.read_bytes()
    charsmap = parse_sentencepiece(data, "tokenizer.model").precompiled_charsmap
    at = data.index(charsmap)
    # The first unit of the double array: its offset now leads far behind the end.
    broken = data[: at + 4] + b"\x00\xfe\xff\x7f" + data[at + 8 :]
    path.write_bytes(broken)
    with pytest.raises(TokenizerError, match="precompiled_charsmap points outside itself"):
        build_vocabulary(tmp_path, config={}, n_vocab=700)


def test_the_models_own_settings_are_read(llama_like: Path) -> None:
    model = parse_sentencepiece((llama_like / "tokenizer.model").read_bytes(), "tokenizer.model")
    assert model.model_type is ModelType.BPE
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (True, False)
    assert model.ids == {"unk": 0, "bos": 1, "eos": 2}
    assert len(model.pieces) == 700


def test_llama_cpp_gives_back_the_text(llama_like: Path, tmp_path: Path) -> None:
    vocabulary = build_vocabulary(llama_like, config={}, n_vocab=700)
    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer="default")
    text = "Two words, 今天 and a 🦙."
    with VocabFile(path) as file:
        assert file.vocab.detokenize(file.vocab.tokenize(text)) == text


def test_a_model_file_that_is_none_beside_a_tokenizer_json_does_not_matter(
    llama_like: Path, tmp_path: Path
) -> None:
    as_hugging_face(llama_like, metaspace=False).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer.model").write_text("version https://git-lfs", encoding="utf-8")
    assert build_vocabulary(tmp_path, config={}, n_vocab=700).agreement.complete


def test_json_and_model_of_different_vocabularies_are_not_mixed(
    llama_like: Path, tmp_path: Path
) -> None:
    folder = copy_of(llama_like, tmp_path)
    tokenizer = as_hugging_face(llama_like, metaspace=False)
    document = json.loads(tokenizer.to_str())
    vocabulary = document["model"]["vocab"]
    (first, a), (second, b) = list(vocabulary.items())[-2:]
    vocabulary[first], vocabulary[second] = b, a
    write_json(folder, "tokenizer.json", document)
    data = plain(build_vocabulary(folder, config={}, n_vocab=700).metadata())
    assert data["tokenizer.ggml.tokens"][-2:] == [second, first]
