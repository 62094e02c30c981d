"""Tokenizers with a few hundred tokens, one of each kind, for tools/make_checkpoints.py."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from recipes.recipe import N_VOCAB

# What the tiny tokenizers are trained on.
CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "A model in the same process answers without a server; an agent asks, the model answers.",
    "One, two, three: 123 plus 456 is 579, and 3.14 is less than 10.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
    "Das Wetter ist schön, und morgen wird es noch schöner. Où est la gare ?",
    "今天天气很好，我们去公园散步。 Привет, как дела? 👋🙂",
] * 4


def _byte_level_bpe(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == N_VOCAB
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "eos_token": "<|end|>",
            "add_bos_token": False,
        },
    )


def _sentencepiece(folder: Path) -> None:
    import sentencepiece

    with tempfile.TemporaryDirectory() as scratch:
        prefix = str(Path(scratch) / "tiny")
        sentencepiece.SentencePieceTrainer.train(
            # With every character of the whole corpus the vocabulary would not hold the bytes.
            sentence_iterator=(text for text in CORPUS if text.isascii()),
            model_prefix=prefix,
            model_type="bpe",
            vocab_size=N_VOCAB,
            byte_fallback=True,
            hard_vocab_limit=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        (folder / "tokenizer.model").write_bytes(Path(f"{prefix}.model").read_bytes())
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "add_eos_token": False,
            "legacy": False,
        },
    )


def _wordpiece(folder: Path) -> None:
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import BertProcessing

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    # The vocabulary comes out smaller than the model's: rows without a token, as some models have.
    tokenizer.train_from_iterator(CORPUS, vocab_size=N_VOCAB, min_frequency=1, show_progress=False)
    assert tokenizer.get_vocab_size() <= N_VOCAB
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    tokenizer._tokenizer.post_processor = BertProcessing(*ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "unk_token": "[UNK]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        },
    )


def _roberta(folder: Path) -> None:
    """Byte-level BPE with RoBERTa's special tokens around every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=list(_ROBERTA_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", **_ROBERTA_TOKENS}
    )


def _unigram(folder: Path) -> None:
    """A unigram vocabulary with XLM-RoBERTa's special tokens around every text."""
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(_white_space_charsmap())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=N_VOCAB,
        special_tokens=list(_ROBERTA_TOKENS.values()),
        unk_token="<unk>",
        show_progress=False,
    )
    # The trainer finds fewer pieces than were asked for: rows without a token, as in some models.
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() <= N_VOCAB
    ends = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "XLMRobertaTokenizer", **_ROBERTA_TOKENS},
    )


_WHITE_SPACE = [
    character for character in map(chr, range(0x10000)) if character.isspace() and character != " "
]


def _white_space_charsmap() -> bytes:
    """SentencePiece's compiled form of a normalization that makes every white space a space."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    with tempfile.TemporaryDirectory() as scratch:
        rules, prefix = Path(scratch) / "rules.tsv", str(Path(scratch) / "tiny")
        rules.write_text("".join(f"{ord(space):X}\t20\n" for space in _WHITE_SPACE))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_prefix=prefix,
            vocab_size=100,
            normalization_rule_tsv=str(rules),
            minloglevel=2,
        )
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(Path(f"{prefix}.model").read_bytes())
        return bytes(model.normalizer_spec.precompiled_charsmap)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "bpe": _byte_level_bpe,
    "spm": _sentencepiece,
    "wordpiece": _wordpiece,
    "roberta": _roberta,
    "unigram": _unigram,
}
