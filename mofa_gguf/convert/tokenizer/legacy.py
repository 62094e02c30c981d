"""Tokenizers from before tokenizer.json: vocab.json with merges.txt, and vocab.txt.

Both are written as the tokenizer.json that transformers would make of them, so that one road leads
on from here and the reference is run by the same library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.added import named_special_tokens, token_type
from mofa_gguf.convert.tokenizer.files import (
    MAX_VOCABULARY_BYTES,
    parse_json_object,
    read_bytes,
    read_text,
)
from mofa_gguf.convert.tokenizer.hf_json import AddedToken, TokenizerJson
from mofa_gguf.convert.tokenizer.vocabulary import TokenType

# tokenizer_config.json and special_tokens_map.json.
Settings = tuple[Mapping[str, object], Mapping[str, object]]

_ROBERTA_CLASSES = ("RobertaTokenizer", "BartTokenizer", "LEDTokenizer", "LongformerTokenizer")
_NFC: Mapping[str, object] = {"type": "NFC"}
_GPT2: tuple[Mapping[str, object], ...] = ()
_DIGITS: Mapping[str, object] = {"type": "Digits", "individual_digits": True}


def _splitting(pattern: str) -> Mapping[str, object]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


_QWEN2 = _splitting(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35 = _splitting(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Tokenizer class -> what its code says of vocab.json and merges.txt: the normalizer and the steps
# that split before the bytes are spelled (models/*/tokenization_*.py in huggingface/transformers).
# Without such a step, GPT-2's regular expression splits.
_CLASSES: Mapping[str, tuple[Mapping[str, object] | None, tuple[Mapping[str, object], ...]]] = {
    "": (None, _GPT2),
    "GPT2Tokenizer": (None, _GPT2),
    "CodeGenTokenizer": (None, _GPT2),
    "WhisperTokenizer": (None, _GPT2),
    **dict.fromkeys(_ROBERTA_CLASSES, (None, _GPT2)),
    "GPTNeoXTokenizer": (_NFC, _GPT2),
    "CohereTokenizer": (_NFC, (_DIGITS,)),
    "Qwen2Tokenizer": (_NFC, (_QWEN2,)),
    "Qwen3_5Tokenizer": (_NFC, (_QWEN35,)),
}
_BERT_SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")


def read_vocab_and_merges(
    folder: Path, settings: Settings, added: Sequence[AddedToken]
) -> TokenizerJson | None:
    """vocab.json and merges.txt as a tokenizer.json, or None when they are not there."""
    vocabulary_data = read_bytes(folder, "vocab.json", max_bytes=MAX_VOCABULARY_BYTES)
    merges_text = read_text(folder, "merges.txt", max_bytes=MAX_VOCABULARY_BYTES)
    if vocabulary_data is None or merges_text is None:
        return None
    config = settings[0]
    name = _class_name(config)
    if name not in _CLASSES:
        known = ", ".join(filter(None, _CLASSES))
        raise TokenizerError(
            f"{folder}: vocab.json and merges.txt of a {name:.60} do not say how it splits text "
            f"(known are {known}); save the tokenizer with a tokenizer.json beside them"
        )
    normalizer, steps = _CLASSES[name]
    vocabulary = _checked(parse_json_object(vocabulary_data, folder / "vocab.json"), folder)
    taken = {token.id for token in added}
    named = named_special_tokens(({"eos_token": "<|endoftext|>"}, *settings), vocabulary, taken)
    prefix = config.get("add_prefix_space") is True
    lines = (line.rstrip("\r") for line in merges_text.split("\n"))
    step = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True}
    by_regex = all(step["type"] != "Split" for step in steps)
    splitting = [*steps, {**step, "use_regex": by_regex}]
    document: dict[str, object] = {
        "version": "1.0",
        "added_tokens": _added_entries([*named, *added]),
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitting},
        "decoder": {**step, "use_regex": True},
        "post_processor": _roberta_processing(vocabulary) if name in _ROBERTA_CLASSES else None,
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [line for line in lines if line and not line.startswith("#version")],
        },
    }
    return _document(document, folder / "vocab.json")


def read_vocab_txt(
    folder: Path, settings: Settings, added: Sequence[AddedToken]
) -> TokenizerJson | None:
    """vocab.txt (one WordPiece token a line) as a tokenizer.json, or None."""
    text = read_text(folder, "vocab.txt", max_bytes=MAX_VOCABULARY_BYTES)
    if text is None:
        return None
    config = settings[0]
    path = folder / "vocab.txt"
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    vocabulary = {line.rstrip("\r"): token for token, line in enumerate(lines)}
    special = {t: vocabulary[t] for t in _BERT_SPECIAL if t in vocabulary}
    missing = [t for t in ("[UNK]", "[CLS]", "[SEP]") if t not in special]
    if missing:
        raise TokenizerError(f"{path}: has no {', '.join(missing)}, so it is no BERT vocabulary")
    known = {entry.id for entry in added}
    roles: list[Mapping[str, object]] = [{"any_token": text} for text in special]
    named = named_special_tokens((*roles, *settings), vocabulary, known)
    document: dict[str, object] = {
        "version": "1.0",
        "added_tokens": _added_entries([*named, *added]),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.get("tokenize_chinese_chars") is not False,
            "strip_accents": _boolean_or_none(config.get("strip_accents")),
            "lowercase": config.get("do_lower_case") is not False,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": ["[SEP]", special["[SEP]"]],
            "cls": ["[CLS]", special["[CLS]"]],
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    return _document(document, path)


def _checked(value: Mapping[str, object], folder: Path) -> dict[str, int]:
    vocabulary: dict[str, int] = {}
    for text, token in value.items():
        if type(token) is not int:
            raise TokenizerError(f"{folder / 'vocab.json'}: the id of {text!r:.40} is no number")
        vocabulary[text] = token
    return vocabulary


def _roberta_processing(vocabulary: Mapping[str, int]) -> dict[str, object] | None:
    if "<s>" not in vocabulary or "</s>" not in vocabulary:
        return None
    return {
        "type": "RobertaProcessing",
        "sep": ["</s>", vocabulary["</s>"]],
        "cls": ["<s>", vocabulary["<s>"]],
        "trim_offsets": True,
        "add_prefix_space": False,
    }


def _class_name(config: Mapping[str, object]) -> str:
    name = config.get("tokenizer_class")
    return name.removesuffix("Fast") if isinstance(name, str) else ""


def _boolean_or_none(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _added_entries(added: Sequence[AddedToken]) -> list[dict[str, object]]:
    return [
        token.entry(special=token_type(token) is TokenType.CONTROL)
        for token in sorted(added, key=lambda token: token.id)
    ]


def _document(value: dict[str, object], path: Path) -> TokenizerJson:
    return TokenizerJson.of(value, path)
