"""Tokenizers from before tokenizer.json: vocab.json with merges.txt, and vocab.txt.

Both are written as the tokenizer.json that transformers would make of them, so that one road leads
on from here and the reference is run by the same library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.added import token_type
from mofa_gguf.convert.tokenizer.files import (
    MAX_VOCABULARY_BYTES,
    parse_json_object,
    read_bytes,
    read_text,
)
from mofa_gguf.convert.tokenizer.hf_json import AddedToken, TokenizerJson
from mofa_gguf.convert.tokenizer.vocabulary import TokenType

# Tokenizer classes whose vocab.json and merges.txt mean GPT-2's splitting. Others split otherwise
# and say so only in code.
_GPT2_CLASSES = ("", "GPT2Tokenizer", "RobertaTokenizer", "BartTokenizer", "CodeGenTokenizer")
_BERT_SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")


def read_vocab_and_merges(
    folder: Path, config: Mapping[str, object], added: Sequence[AddedToken]
) -> TokenizerJson | None:
    """vocab.json and merges.txt as a tokenizer.json, or None when they are not there."""
    vocabulary_data = read_bytes(folder, "vocab.json", max_bytes=MAX_VOCABULARY_BYTES)
    merges_text = read_text(folder, "merges.txt", max_bytes=MAX_VOCABULARY_BYTES)
    if vocabulary_data is None or merges_text is None:
        return None
    name = _class_name(config)
    if name not in _GPT2_CLASSES:
        raise TokenizerError(
            f"{folder}: vocab.json and merges.txt of a {name} do not say how it splits text; "
            "save the tokenizer with a tokenizer.json beside them"
        )
    prefix = config.get("add_prefix_space") is True
    lines = (line.rstrip("\r") for line in merges_text.split("\n"))
    step = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True}
    document = {
        "version": "1.0",
        "added_tokens": _added_entries(added),
        "normalizer": None,
        "pre_tokenizer": {**step, "use_regex": True},
        "decoder": {**step, "use_regex": True},
        "post_processor": None,
        "model": {
            "type": "BPE",
            "vocab": parse_json_object(vocabulary_data, folder / "vocab.json"),
            "merges": [line for line in lines if line and not line.startswith("#version")],
        },
    }
    return _document(document, folder / "vocab.json")


def read_vocab_txt(
    folder: Path, config: Mapping[str, object], added: Sequence[AddedToken]
) -> TokenizerJson | None:
    """vocab.txt (one WordPiece token a line) as a tokenizer.json, or None."""
    text = read_text(folder, "vocab.txt", max_bytes=MAX_VOCABULARY_BYTES)
    if text is None:
        return None
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
    entries = [AddedToken(i, t, True) for t, i in special.items() if i not in known]
    document = {
        "version": "1.0",
        "added_tokens": _added_entries([*entries, *added]),
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


def _class_name(config: Mapping[str, object]) -> str:
    name = config.get("tokenizer_class")
    return name.removesuffix("Fast") if isinstance(name, str) else ""


def _boolean_or_none(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _added_entries(added: Sequence[AddedToken]) -> list[dict[str, object]]:
    return [
        {
            "id": token.id,
            "content": token.content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": token_type(token) is TokenType.CONTROL,
        }
        for token in sorted(added, key=lambda token: token.id)
    ]


def _document(value: dict[str, object], path: Path) -> TokenizerJson:
    return TokenizerJson(value, json.dumps(value), path)
