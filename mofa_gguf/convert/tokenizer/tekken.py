"""tekken.json, Mistral's own tokenizer file, as a tokenizer.json.

Format: mistralai/mistral-common, src/mistral_common/tokens/tokenizers/tekken.py. A tiktoken
vocabulary: byte strings by rank and a regular expression that splits; the first ids are special
tokens, the ranks follow behind them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.files import (
    MAX_VOCABULARY_BYTES,
    parse_json_object,
    read_bytes,
)
from mofa_gguf.convert.tokenizer.hf_json import AddedToken, TokenizerJson
from mofa_gguf.convert.tokenizer.pretokenizer import byte_characters
from mofa_gguf.convert.tokenizer.vocabulary import MAX_TOKENS

FILE_NAME = "tekken.json"

# Files before version v7 do not list their special tokens; these are theirs, in order.
_UNLISTED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
_FILLER = "<SPECIAL_{}>"
_ROLES = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}
_MAX_TOKEN_BYTES = 4096


def read_tekken(folder: Path) -> TokenizerJson | None:
    """The folder's tekken.json as a tokenizer.json, or None. Raises TokenizerError."""
    data = read_bytes(folder, FILE_NAME, max_bytes=MAX_VOCABULARY_BYTES)
    if data is None:
        return None
    path = folder / FILE_NAME
    value = parse_json_object(data, path)
    config = value.get("config")
    if not isinstance(config, dict) or not isinstance(config.get("pattern"), str):
        raise TokenizerError(f"{path}: config.pattern is missing or no text")
    n_special = _count(config, "default_num_special_tokens", path)
    n_tokens = _count(config, "default_vocab_size", path)
    if n_special >= n_tokens:
        raise TokenizerError(f"{path}: has {n_special} special tokens of {n_tokens} in all")
    special = _special_tokens(value.get("special_tokens"), n_special, path)
    ranked = _ranked(value.get("vocab"), n_tokens - n_special, path)
    spelled = _spellings(ranked)
    vocabulary = {text: token for token, text in enumerate([*special, *spelled])}
    if len(vocabulary) != len(special) + len(spelled):
        raise TokenizerError(f"{path}: a token stands in it twice")
    document = {
        "version": "1.0",
        "added_tokens": [
            AddedToken(token, text, True).entry(special=True) for token, text in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": config["pattern"]},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(),
            ],
        },
        "post_processor": _begins_with(_ROLES["bos"], special),
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            # tiktoken takes a word that is a token as it is.
            "ignore_merges": True,
            "vocab": vocabulary,
            "merges": _merges(ranked, spelled),
        },
    }
    return TokenizerJson.of(document, path)


def tekken_roles(document: TokenizerJson) -> dict[str, int]:
    """Ids by role, which the format fixes by the tokens' texts."""
    ids = {token.content: token.id for token in document.added}
    return {role: ids[text] for role, text in _ROLES.items() if text in ids}


def _count(config: dict[str, Any], key: str, path: Path) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise TokenizerError(f"{path}: config.{key} is {value!r:.40}, no number of tokens")
    return value


def _special_tokens(listed: object, n_special: int, path: Path) -> list[str]:
    """Texts of the first ``n_special`` ids; those without a name get one, as the library does."""
    names: dict[int, str] = dict(enumerate(_UNLISTED[:n_special]))
    if listed is not None:
        if not isinstance(listed, list):
            raise TokenizerError(f"{path}: special_tokens is no list")
        names = {}
        for entry in listed:
            rank = entry.get("rank") if isinstance(entry, dict) else None
            text = entry.get("token_str") if isinstance(entry, dict) else None
            if type(rank) is not int or not 0 <= rank < n_special or not isinstance(text, str):
                raise TokenizerError(f"{path}: {entry!r:.80} is no special token")
            names[rank] = text
    return [names.get(token) or _FILLER.format(token) for token in range(n_special)]


def _ranked(listed: object, n_used: int, path: Path) -> list[bytes]:
    """The byte strings in the order of their ranks; a file may hold more than are used."""
    if not isinstance(listed, list) or len(listed) < n_used:
        raise TokenizerError(f"{path}: vocab is no list of {n_used} tokens or more")
    ranked: list[bytes] = []
    for rank, entry in enumerate(listed[:n_used]):
        if not isinstance(entry, dict) or entry.get("rank") != rank:
            raise TokenizerError(f"{path}: vocab has no token of rank {rank} in its place")
        try:
            token = base64.b64decode(entry.get("token_bytes"), validate=True)  # type: ignore[arg-type]
        except (TypeError, ValueError, binascii.Error) as error:
            raise TokenizerError(f"{path}: token {rank} is not base64 ({error})") from error
        if not 0 < len(token) <= _MAX_TOKEN_BYTES:
            raise TokenizerError(f"{path}: token {rank} has {len(token)} bytes")
        ranked.append(token)
    missing = set(range(256)) - {token[0] for token in ranked if len(token) == 1}
    if missing:
        raise TokenizerError(f"{path}: no token stands for the byte {min(missing)}")
    return ranked


def _spellings(ranked: Sequence[bytes]) -> list[str]:
    characters = byte_characters()
    table = {byte: characters[byte] for byte in range(256)}
    return [token.decode("latin-1").translate(table) for token in ranked]


def _merges(ranked: Sequence[bytes], spelled: Sequence[str]) -> list[list[str]]:
    """Every pair of tokens that makes a token, in the order of what it makes.

    tiktoken merges whatever neighbours give the token of the lowest rank, so all pairs count.
    """
    ranks = {token: rank for rank, token in enumerate(ranked)}
    merges: list[list[str]] = []
    for token in ranked:
        pairs = [
            (ranks[token[:at]], ranks[token[at:]])
            for at in range(1, len(token))
            if token[:at] in ranks and token[at:] in ranks
        ]
        merges += [[spelled[left], spelled[right]] for left, right in sorted(pairs)]
    return merges


def _byte_level() -> dict[str, object]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }


def _begins_with(text: str, special: Sequence[str]) -> dict[str, object] | None:
    """A post-processor that puts the token ``text`` in front, where there is one."""
    if text not in special:
        return None
    token = {"SpecialToken": {"id": text, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [token, first],
        "pair": [token, first, token, second],
        "special_tokens": {text: {"id": text, "ids": [special.index(text)], "tokens": [text]}},
    }
