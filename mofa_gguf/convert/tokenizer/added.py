"""Added tokens: where a checkpoint lists them, and what type each gets in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.fim import FIM_TEXTS
from mofa_gguf.convert.tokenizer.hf_json import AddedToken, TokenizerJson, parse_added_token
from mofa_gguf.convert.tokenizer.special import KNOWN_ENDS
from mofa_gguf.convert.tokenizer.vocabulary import ADDED_TOKEN_SCORE, TokenTable, TokenType

# Control tokens that some published tokenizers do not mark as special, beside those in angle
# brackets with bars (deepseek-coder, gemma, command-r).
_UNMARKED_CONTROL = frozenset({"<pad>", "<mask>", "<2mass>", "[@BOS@]"})


def looks_like_control(text: str) -> bool:
    """Whether an added token is one that no user may forge, though it is not marked special."""
    return (
        text in _UNMARKED_CONTROL
        # llama.cpp takes these for control tokens, whatever a file says.
        or text in KNOWN_ENDS
        or text in FIM_TEXTS
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )


def token_type(token: AddedToken) -> TokenType:
    """CONTROL for special tokens, USER_DEFINED for those that are text."""
    if token.special or looks_like_control(token.content):
        return TokenType.CONTROL
    return TokenType.USER_DEFINED


def from_added_tokens_json(value: Mapping[str, object], path: Path) -> list[AddedToken]:
    """Added tokens of an added_tokens.json: text -> id."""
    return [
        parse_added_token({"content": text, "id": token}, None, path)
        for text, token in value.items()
    ]


def from_tokenizer_config(config: Mapping[str, object], path: Path) -> list[AddedToken]:
    """Added tokens of tokenizer_config.json's ``added_tokens_decoder``: id as a string -> entry."""
    decoder = config.get("added_tokens_decoder")
    if decoder is None:
        return []
    if not isinstance(decoder, dict):
        raise TokenizerError(f"{path}: added_tokens_decoder is no JSON object")
    tokens = []
    for key, entry in decoder.items():
        if not key.isdecimal() or len(key) > 9:
            raise TokenizerError(f"{path}: added_tokens_decoder has the impossible id {key[:20]!r}")
        tokens.append(parse_added_token(entry, int(key), path))
    return tokens


def missing_entries(
    document: TokenizerJson, listed: Iterable[AddedToken]
) -> list[dict[str, object]]:
    """Entries for listed tokens that a tokenizer.json lacks, in the order of their ids.

    Fine-tunes of old keep their new tokens in added_tokens.json alone; transformers adds them when
    it loads the tokenizer.
    """
    known = {token.content for token in document.added}
    has_texts = document.model_type in ("BPE", "WordPiece")
    vocabulary = document.vocabulary_mapping() if has_texts else {}
    # Entries come sorted by id: the tokenizers library counts on from the vocabulary.
    missing = sorted(
        (t for t in listed if t.content and t.content not in known and t.content not in vocabulary),
        key=lambda t: t.id,
    )
    return [token.entry(special=token_type(token) is TokenType.CONTROL) for token in missing]


def named_special_tokens(
    settings: Iterable[Mapping[str, object]], vocabulary: Mapping[str, int], added: set[int]
) -> list[AddedToken]:
    """Tokens of the vocabulary that tokenizer_config.json or special_tokens_map.json give a role.

    Tokenizers without a tokenizer.json list only those added later; bos, eos and their like are
    special all the same.
    """
    found: dict[int, AddedToken] = {}
    for place in settings:
        for key, value in place.items():
            text = value.get("content") if isinstance(value, dict) else value
            if not key.endswith("_token") or not isinstance(text, str):
                continue
            token = vocabulary.get(text)
            if token is not None and token not in added:
                found[token] = AddedToken(token, text, True)
    return list(found.values())


def place_added(
    table: TokenTable, tokens: Iterable[AddedToken], *, escaped_spaces: bool = False
) -> None:
    """Enter added tokens into the table.

    llama.cpp looks for user-defined tokens in the raw text: with ``escaped_spaces`` (SentencePiece
    vocabularies) their "▁" becomes the space it stands for. The unknown token and byte tokens keep
    their types.
    """
    for token in tokens:
        kind = token_type(token)
        present = table.text(token.id)
        if present is not None and table.type(token.id) in (TokenType.UNKNOWN, TokenType.BYTE):
            continue
        text = token.content
        if escaped_spaces and kind is TokenType.USER_DEFINED:
            text = text.replace("\u2581", " ")
        table.place(token.id, text, kind, ADDED_TOKEN_SCORE)
