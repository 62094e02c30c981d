"""Special tokens: their ids, what is put around a text, and which tokens end a generation.

Sources, strongest first: what the tokenizer's post-processor really adds (measured), the names in
tokenizer_config.json and special_tokens_map.json, the ids in config.json and
generation_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.fim import FIM_KEYS, fim_tokens
from mofa_gguf.convert.tokenizer.vocabulary import KindVocabulary, TokenType

# Role -> GGUF key (the misspelling of "separator" is the format's).
_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "eot": "tokenizer.ggml.eot_token_id",
    "eom": "tokenizer.ggml.eom_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "sep": "tokenizer.ggml.seperator_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "cls": "tokenizer.ggml.cls_token_id",
    "mask": "tokenizer.ggml.mask_token_id",
    **FIM_KEYS,
}
_NAMED_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_MAX_END_TOKENS = 256
# Texts that llama.cpp takes for an end of generation without being told (src/llama-vocab.cpp).
KNOWN_ENDS = frozenset(
    {
        "</s>",
        "<EOT>",
        "<eos>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<turn|>",
        "<|call|>",
        "<|calls|>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|end|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|flush|>",
        "<|im_end|>",
        "<|return|>",
        "<|tool_response>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "[EOS]",
        "[EOT]",
        "[e~[",
        "_<EOT>",
    }
)


_NOTHING: Mapping[str, object] = MappingProxyType({})


class SpecialSources(NamedTuple):
    """The JSON objects that name special tokens; absent files are empty objects."""

    folder: Path
    tokenizer_config: Mapping[str, object] = _NOTHING
    special_tokens_map: Mapping[str, object] = _NOTHING
    config: Mapping[str, object] = _NOTHING
    generation_config: Mapping[str, object] = _NOTHING


class SpecialTokens:
    """Ids by role, whether they are added around a text, and all ids that end a generation."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.add: dict[str, bool] = {}
        self.end_of_generation: list[int] = []
        self.warnings: list[str] = []

    def metadata(self) -> Metadata:
        """The ``tokenizer.ggml.*`` keys; ``eos_token_ids`` (ours) is the whole list."""
        data = Metadata()
        for role, key in _KEYS.items():
            if role in self.ids:
                data.uint32(key, self.ids[role])
        for role in ("bos", "eos", "sep"):
            if role in self.add:
                data.boolean(f"tokenizer.ggml.add_{role}_token", self.add[role])
        if self.end_of_generation:
            data.uint32s("tokenizer.ggml.eos_token_ids", self.end_of_generation)
        return data


def read_special_tokens(
    sources: SpecialSources,
    *,
    token_ids: Mapping[str, int],
    n_vocab: int,
    surroundings: tuple[Sequence[int], Sequence[int]] | None,
    default_add: tuple[bool, bool],
    known_ids: Mapping[str, int],
) -> SpecialTokens:
    """Gather special tokens.

    ``token_ids`` maps texts to ids. ``surroundings`` are the ids that the tokenizer puts in front
    of and behind a text, or None when nothing runs a post-processor; then add_bos_token and
    add_eos_token of tokenizer_config.json decide, ``default_add`` where they are silent.
    ``known_ids`` are those that the vocabulary itself names (a SentencePiece model does).
    Raises TokenizerError for values of the wrong type.
    """
    tokens = SpecialTokens()
    for role in _NAMED_ROLES:
        found = _named(sources, role, token_ids, n_vocab)
        if found is None:
            found = _numbered(sources, role, n_vocab, tokens.warnings)
        if found is None:
            found = known_ids.get(role)
        if found is not None:
            tokens.ids[role] = found
    if surroundings is None:
        _add_as_configured(tokens, sources, default_add)
    else:
        before, behind = surroundings
        if any(token >= n_vocab for token in (*before, *behind)):
            raise TokenizerError(
                f"{sources.folder}: the tokenizer puts a token around texts that has no embedding "
                f"in the model, which has {n_vocab}"
            )
        _add_as_measured(tokens, before, behind)
    tokens.ids.update(fim_tokens(sources.tokenizer_config, token_ids, n_vocab))
    known_ends = {token_ids[text] for text in KNOWN_ENDS if text in token_ids}
    _collect_ends(tokens, _ids_of(sources, "eos_token_id", n_vocab, []), known_ends)
    return tokens


def complete_for_kind(
    tokens: SpecialTokens,
    tables: KindVocabulary,
    surroundings: tuple[Sequence[int], Sequence[int]] | None,
    folder: Path,
) -> SpecialTokens:
    """Set what llama.cpp relies on for this kind and does not check itself.

    Raises TokenizerError for a WordPiece tokenizer that does not put one token before and one
    behind a text: llama.cpp always does, and ends the process when it has no ids for them.
    """
    types = tables.lists.types
    if tables.kind != "bpe" and TokenType.UNKNOWN in types:
        tokens.ids["unk"] = types.index(TokenType.UNKNOWN)
    if tables.kind == "wordpiece":
        if surroundings is None or not surroundings[0] or not surroundings[1]:
            raise TokenizerError(
                f"{folder}: a WordPiece tokenizer must put a token before and one behind a text "
                "([CLS] and [SEP]), as llama.cpp does; this one's post-processor does not"
            )
        tokens.ids["sep"] = surroundings[1][-1]
    return tokens


def _named(
    sources: SpecialSources, role: str, token_ids: Mapping[str, int], n_vocab: int
) -> int | None:
    for source in (sources.tokenizer_config, sources.special_tokens_map):
        value = source.get(f"{role}_token")
        text = value.get("content") if isinstance(value, dict) else value
        if text is not None and not isinstance(text, str):
            raise TokenizerError(
                f"{sources.folder}: {role}_token of the tokenizer's configuration is no text"
            )
        if text is not None and token_ids.get(text, n_vocab) < n_vocab:
            return token_ids[text]
    return None


def _numbered(sources: SpecialSources, role: str, n_vocab: int, warnings: list[str]) -> int | None:
    ids = _ids_of(sources, f"{role}_token_id", n_vocab, warnings)
    return ids[0] if ids else None


def _ids_of(sources: SpecialSources, key: str, n_vocab: int, warnings: list[str]) -> list[int]:
    """Every id under ``key`` in generation_config.json, then config.json (and its text part)."""
    text_config = sources.config.get("text_config")
    places = [sources.generation_config, sources.config]
    if isinstance(text_config, dict):
        places.append(text_config)
    ids: list[int] = []
    for place in places:
        value = place.get(key)
        if value is None:
            continue
        listed = value if isinstance(value, list) else [value]
        for token in listed[:_MAX_END_TOKENS]:
            if type(token) is not int:
                raise TokenizerError(f"{sources.folder}: {key} holds {token!r:.40}, which is no id")
            if not 0 <= token < n_vocab:
                # -1 is a common way to write "none".
                if token >= n_vocab:
                    warnings.append(f"{key} {token} lies beyond the vocabulary and was left out")
                continue
            if token not in ids:
                ids.append(token)
    return ids


def _add_as_configured(
    tokens: SpecialTokens, sources: SpecialSources, default_add: tuple[bool, bool]
) -> None:
    for role, default in zip(("bos", "eos"), default_add, strict=True):
        value = sources.tokenizer_config.get(f"add_{role}_token")
        wanted = value if isinstance(value, bool) else default
        tokens.add[role] = wanted and role in tokens.ids


def _add_as_measured(tokens: SpecialTokens, before: Sequence[int], behind: Sequence[int]) -> None:
    """Take bos and eos from what is really added around a text.

    A tokenizer may end texts with another token than the one that ends its answers (Qwen3
    embedding models): then the former is llama.cpp's eos, the latter stays an end of generation.
    """
    if len(before) > 1 or len(behind) > 1:
        tokens.warnings.append(
            f"the tokenizer puts {len(before)} tokens before and {len(behind)} behind a text; "
            "a GGUF file can say one each"
        )
    tokens.add["bos"] = bool(before)
    tokens.add["eos"] = bool(behind)
    if before:
        tokens.ids["bos"] = before[0]
    if behind:
        previous = tokens.ids.get("eos")
        if previous is not None and previous != behind[-1]:
            tokens.ids["eot"] = previous
        tokens.ids["eos"] = behind[-1]


def _collect_ends(tokens: SpecialTokens, configured: Sequence[int], known_ends: set[int]) -> None:
    """All ids that end a generation, and keys so that llama.cpp stops on them too.

    llama.cpp reads one id each from eos, eom and eot, and finds others by well-known texts; a token
    that it would not find takes a free key.
    """
    ends = [tokens.ids[role] for role in ("eos", "eot") if role in tokens.ids]
    ends += [token for token in configured if token not in ends]
    tokens.end_of_generation = ends
    unknown = [token for token in ends if token not in known_ends]
    unknown = [token for token in unknown if token not in tokens.ids.values()]
    for role in ("eom", "eot"):
        if role not in tokens.ids and unknown:
            tokens.ids[role] = unknown.pop(0)
    if unknown:
        tokens.warnings.append(
            f"tokens {unknown} end an answer too, which only readers of "
            "tokenizer.ggml.eos_token_ids can know"
        )
    if not ends:
        tokens.warnings.append(
            "no configuration names a token that ends an answer; generations stop at max_tokens"
        )
