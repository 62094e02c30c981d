"""Byte-level BPE (GPT-2 and its many descendants): ``tokenizer.ggml.model`` = "gpt2"."""

from __future__ import annotations

from mofa_gguf.convert.tokenizer.added import place_added
from mofa_gguf.convert.tokenizer.hf_json import TokenizerJson
from mofa_gguf.convert.tokenizer.vocabulary import KindVocabulary, TokenTable, TokenType


def read_byte_level_bpe(source: TokenizerJson, *, n_vocab: int) -> KindVocabulary:
    """Tokens, types and merges of a byte-level BPE tokenizer.json.

    Raises TokenizerError when the file is malformed or has features that llama.cpp lacks.
    """
    for feature in ("continuing_subword_prefix", "end_of_word_suffix"):
        if source.model.get(feature):
            raise source.broken(f"BPE with {feature} cannot be expressed in a GGUF file")
    table = TokenTable(n_vocab, added=(token.id for token in source.added))
    vocabulary = source.vocabulary_mapping()
    table.place_all(zip(vocabulary.values(), vocabulary, strict=True), TokenType.NORMAL)
    place_added(table, source.added)
    merges = [f"{_spaceless(a)} {_spaceless(b)}" for a, b in source.merges()]
    lists = table.finish()
    return KindVocabulary("bpe", "gpt2", lists, merges=merges, warnings=tuple(table.warnings))


def _spaceless(part: str) -> str:
    """A merge's part without a raw space, which would end it; bytes are written as U+0120."""
    return part.replace(" ", "\u0120")
