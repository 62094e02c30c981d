"""Makes small tokenizers of every kind, and reads what came of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.battery import FULL

SENTENCES = [
    "The small boat crossed the bay before noon and came back at dusk.",
    "She'll write three letters, they've read 1024 of them, it's done.",
    "def add(a, b):\n    return a + b  # adds 12 and 345\n",
    "Ein schöner Tag für einen Spaziergang im Wald, hélas il pleut à Paris.",
    "今天天气很好，我们一起去公园。 Привет, как дела? مرحبا بالعالم",
    *(item.text for item in FULL),
]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")


def by_regex(pattern: str) -> Any:
    """A pre-tokenizer that splits by a regular expression and spells bytes as characters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def gpt2_splitting(*, digits: bool = False) -> Any:
    """GPT-2's pre-tokenizer; with ``digits`` every digit stands alone, as in SmolLM2."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if not digits:
        return byte_level
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])


def train_byte_level(
    pre_tokenizer: Any, *, n_tokens: int = 700, normalizer: Any = None, **model: Any
) -> Any:
    """A byte-level BPE with <|end|>-like special tokens, trained on SENTENCES."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=n_tokens,
        special_tokens=["<|begin|>", "<|stop|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def train_wordpiece(*, lowercase: bool = True, n_tokens: int = 900) -> Any:
    """A BERT-like WordPiece."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=n_tokens,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def train_sentencepiece(
    folder: Path, *, kind: str, name: str = "tokenizer.model", **more: Any
) -> None:
    """A SentencePiece model (``kind``: "bpe" or "unigram") with Llama's settings by default."""
    corpus = folder / "corpus.txt"
    texts = [*SENTENCES[:5], *(item.text for item in FULL if item.text.isascii())]
    corpus.write_text("\n".join(" ".join(text.split()) for text in texts), encoding="utf-8")
    settings = {
        "vocab_size": 700,
        "character_coverage": 1.0,
        "byte_fallback": kind == "bpe",
        "hard_vocab_limit": kind == "bpe",
        "normalization_rule_name": "identity" if kind == "bpe" else "nmt_nfkc",
        "remove_extra_whitespaces": kind != "bpe",
        "split_digits": True,
        "minloglevel": 2,
        "num_threads": 1,
        **more,
    }
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(folder / "made"), model_type=kind, **settings
    )
    (folder / "made.model").rename(folder / name)
    (folder / "made.vocab").unlink()
    corpus.unlink()


def write_json(folder: Path, name: str, value: object) -> None:
    """Write a JSON file of a checkpoint."""
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def plain(metadata: Metadata) -> dict[str, Any]:
    """Metadata as a dictionary of Python values."""
    return {key: value.data for key, value in metadata.items()}


def n_rows(folder: Path, config: Mapping[str, Any]) -> int:
    """The vocabulary's size by config.json, else by tokenizer.json."""
    for place in (config, config.get("text_config", {})):
        if "vocab_size" in place:
            return int(place["vocab_size"])
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = [*document["model"]["vocab"].values(), *(t["id"] for t in document["added_tokens"])]
    return int(max(ids)) + 1
