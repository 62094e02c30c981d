"""Makes small tokenizers of every kind, and reads what came of them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.sentencepiece_model import parse_sentencepiece

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


def as_hugging_face(folder: Path, *, metaspace: bool, prefix: bool = True) -> Any:
    """The BPE of a tokenizer.model as the `tokenizers` library runs it (as Llama's converters)."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocabulary = {processor.IdToPiece(i): i for i in range(processor.GetPieceSize())}
    merges = []
    for merged in vocabulary:
        pairs = [(merged[:at], merged[at:]) for at in range(1, len(merged))]
        here = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        here.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        merges += [(vocabulary[merged], pair) for pair in here if vocabulary[merged] > 258]
    ordered = [pair for _, pair in sorted(merges, key=lambda merge: merge[0])]
    model = models.BPE(vocabulary, ordered, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if metaspace:
        scheme = "first" if prefix else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def unigram_json(folder: Path) -> str:
    """A T5-like tokenizer.json, with the character map of a SentencePiece model made for it."""
    train_sentencepiece(folder, kind="unigram", name="unigram.model")
    path = folder / "unigram.model"
    model = parse_sentencepiece(path.read_bytes(), path.name)
    path.unlink()
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
    return str(tokenizer.to_str())


TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tekken(*, n_merged: int, n_special: int = 24, listed: bool = False) -> dict[str, Any]:
    """A tekken.json as Mistral's: bytes, then byte strings merged from frequent neighbours."""
    words = [piece.encode() for text in SENTENCES for piece in text.split(" ")]
    split = [[bytes([byte]) for byte in word] for word in words]
    ranked = [bytes([byte]) for byte in range(256)]
    while len(ranked) < 256 + n_merged:
        pairs = Counter(pair for word in split for pair in pairwise(word))
        (left, right), _ = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        ranked.append(left + right)
        split = [_joined(word, left, right) for word in split]
    vocab = [
        {"rank": rank, "token_bytes": b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(ranked)
    ]
    document: dict[str, Any] = {
        "config": {
            "pattern": TEKKEN,
            "num_vocab_tokens": len(vocab),
            "default_vocab_size": len(vocab) + n_special,
            "default_num_special_tokens": n_special,
            "version": "v3",
        },
        "vocab": vocab,
    }
    if listed:
        names = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")
        document["special_tokens"] = [
            {"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)
        ]
    return document


def _joined(word: list[bytes], left: bytes, right: bytes) -> list[bytes]:
    joined: list[bytes] = []
    for part in word:
        if joined and joined[-1] == left and part == right:
            joined[-1] = left + right
        else:
            joined.append(part)
    return joined
