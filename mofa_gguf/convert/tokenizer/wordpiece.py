"""WordPiece (BERT and relatives): ``tokenizer.ggml.model`` = "bert".

llama.cpp marks where words begin instead of where they go on: "##ing" is stored as "ing" and "play"
as "▁play", a phantom space in front.
"""

from __future__ import annotations

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.added import token_type
from mofa_gguf.convert.tokenizer.hf_json import TokenizerJson
from mofa_gguf.convert.tokenizer.vocabulary import KindVocabulary, TokenTable, TokenType

_PHANTOM_SPACE = "\u2581"


def read_wordpiece(source: TokenizerJson, *, n_vocab: int) -> KindVocabulary:
    """Tables of a WordPiece tokenizer.json."""
    prefix = source.model.get("continuing_subword_prefix", "##")
    unknown = source.model.get("unk_token")
    if not isinstance(prefix, str) or not prefix or not isinstance(unknown, str):
        raise source.broken("WordPiece needs a continuing_subword_prefix and an unk_token")
    added = {token.id: token for token in source.added}
    table = TokenTable(n_vocab, added=added)
    vocabulary = source.vocabulary_mapping()
    if unknown not in vocabulary:
        raise source.broken(f"the unknown token {unknown!r:.60} is not in the vocabulary")
    texts = dict(zip(vocabulary.values(), vocabulary, strict=True))
    for token in (vocabulary[unknown], *added):
        texts.pop(token, None)
    n_prefix = len(prefix)
    pieces = [
        text[n_prefix:] if text.startswith(prefix) else _PHANTOM_SPACE + text
        for text in texts.values()
    ]
    table.place_all(zip(texts, pieces, strict=True), TokenType.NORMAL)
    table.place(vocabulary[unknown], unknown, TokenType.UNKNOWN)
    for token, entry in added.items():
        if entry.content != unknown:
            table.place(token, entry.content, token_type(entry))
    lists = table.finish()
    lowercase, strip_accents = _normalizer_flags(source)
    return KindVocabulary(
        "wordpiece",
        "bert",
        lists,
        lowercase=lowercase,
        strip_accents=strip_accents,
        warnings=tuple(table.warnings),
    )


def _normalizer_flags(source: TokenizerJson) -> tuple[bool, bool | None]:
    """(lowercase, strip_accents); None leaves the latter to follow the former, as BERT's does."""
    bert = source.step("normalizer", "BertNormalizer")
    if bert is None:
        lowercase = source.step("normalizer", "Lowercase") is not None
        return lowercase, source.step("normalizer", "StripAccents") is not None
    strip_accents = bert.get("strip_accents")
    if strip_accents is not None and not isinstance(strip_accents, bool):
        raise TokenizerError(f"{source.path}: strip_accents is neither true, false nor null")
    return bert.get("lowercase") is not False, strip_accents
