"""tokenizer.json taken apart: model, added tokens, and the steps of its pipeline.

Format: the serialisation of the `tokenizers` library (huggingface/tokenizers,
tokenizers/src/tokenizer/serialization.rs).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.vocabulary import MAX_TOKENS

# What a "Sequence" step calls the list of its parts, by section.
_PARTS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "post_processor": "processors",
    "decoder": "decoders",
}
_MAX_DEPTH = 16


class AddedToken(NamedTuple):
    """One entry of ``added_tokens``, or of ``added_tokens_decoder`` in tokenizer_config.json."""

    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    def entry(self, *, special: bool) -> dict[str, object]:
        """Its form in ``added_tokens``."""
        return {
            "id": self.id,
            "content": self.content,
            "single_word": self.single_word,
            "lstrip": self.lstrip,
            "rstrip": self.rstrip,
            "normalized": self.normalized,
            "special": special,
        }


class TokenizerJson:
    """A parsed tokenizer.json and its text. Raises TokenizerError where its shape is wrong."""

    def __init__(self, value: Mapping[str, object], text: str, path: Path) -> None:
        self.path = path
        self.text = text
        self._value = value
        self.model = self._mapping(value.get("model"), "model")
        self.added = self._added_tokens(value.get("added_tokens"))
        self.model_type = self._model_type()
        self._vocabulary: dict[str, int] | None = None

    @classmethod
    def of(cls, value: Mapping[str, object], path: Path) -> TokenizerJson:
        """A document that is in no file as it is."""
        return cls(value, _compact(value), path)

    def section(self, name: str) -> object:
        """The raw value of ``normalizer``, ``pre_tokenizer``, ..."""
        return self._value.get(name)

    def steps(self, section: str) -> list[dict[str, Any]]:
        """The steps of a section, nested sequences opened."""
        return list(self._open(self._value.get(section), section, 0))

    def step(self, section: str, kind: str) -> dict[str, Any] | None:
        """The first step of this type in the section."""
        return next((step for step in self.steps(section) if step.get("type") == kind), None)

    def compact(self) -> str:
        """The whole document: its own text, or without the white space of one in many lines."""
        return _compact(self._value) if "\n" in self.text else self.text

    def renumbered(self, ids: Mapping[str, int]) -> TokenizerJson:
        """The document with the ids that the `tokenizers` library gives its added tokens.

        The library counts on from the vocabulary, whatever a file says.
        """
        entries = self._value.get("added_tokens")
        assert isinstance(entries, list)
        listed = [{**entry, "id": ids.get(entry["content"], entry["id"])} for entry in entries]
        return TokenizerJson.of({**self._value, "added_tokens": listed}, self.path)

    def with_added(self, entries: Sequence[Mapping[str, object]]) -> TokenizerJson:
        """The document with more added tokens behind its own."""
        if not entries:
            return self
        own = self._value.get("added_tokens") or []
        assert isinstance(own, list)
        value = {**self._value, "added_tokens": [*own, *entries]}
        return TokenizerJson.of(value, self.path)

    def within(self, n_vocab: int) -> TokenizerJson:
        """The document without added tokens that have no row in the embedding matrix."""
        if all(token.id < n_vocab for token in self.added):
            return self
        entries = self._value.get("added_tokens")
        assert isinstance(entries, list)
        value = {**self._value, "added_tokens": [e for e in entries if e["id"] < n_vocab]}
        return TokenizerJson.of(value, self.path)

    def broken(self, problem: str) -> TokenizerError:
        """An error that names this file."""
        return TokenizerError(f"{self.path}: {problem}")

    def vocabulary_mapping(self) -> dict[str, int]:
        """``model.vocab`` of BPE and WordPiece: text -> id, checked."""
        if self._vocabulary is None:
            vocabulary = self._mapping(self.model.get("vocab"), "model.vocab")
            for text, token in vocabulary.items():
                if type(token) is not int or not 0 <= token < MAX_TOKENS:
                    raise self.broken(
                        f"the vocabulary gives {text!r:.60} the impossible id {token!r:.60}"
                    )
            self._vocabulary = vocabulary
        return self._vocabulary

    def merges(self) -> list[tuple[str, str]]:
        """``model.merges`` as pairs, whichever of the two forms the file uses."""
        raw = self.model.get("merges")
        if not isinstance(raw, list):
            raise self.broken("model.merges is no list")
        return parse_merges(raw, self.path)

    def _mapping(self, value: object, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.broken(f"{name} is missing or no JSON object")
        return value

    def _open(self, value: object, section: str, depth: int) -> Iterator[dict[str, Any]]:
        if value is None:
            return
        if not isinstance(value, dict) or depth > _MAX_DEPTH:
            raise self.broken(f"{section} is no JSON object")
        if value.get("type") != "Sequence":
            yield value
            return
        parts = value.get(_PARTS[section])
        if not isinstance(parts, list):
            raise self.broken(f"{section} is a sequence without {_PARTS[section]}")
        for part in parts:
            yield from self._open(part, section, depth + 1)

    def _added_tokens(self, value: object) -> tuple[AddedToken, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.broken("added_tokens is no list")
        return tuple(parse_added_token(entry, None, self.path) for entry in value)

    def _model_type(self) -> str:
        """``model.type``; files of early versions of the library leave it out."""
        kind = self.model.get("type")
        if isinstance(kind, str):
            return kind
        if "merges" in self.model:
            return "BPE"
        if isinstance(self.model.get("vocab"), list):
            return "Unigram"
        if "max_input_chars_per_word" in self.model:
            return "WordPiece"
        raise self.broken("model.type is missing and cannot be guessed")


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_added_token(entry: object, token: object, path: Path) -> AddedToken:
    """An added token from its JSON form; ``token`` is its id where the entry itself has none."""
    if not isinstance(entry, dict):
        raise TokenizerError(f"{path}: an added token is no JSON object")
    number = entry.get("id") if token is None else token
    content = entry.get("content")
    if type(number) is not int or not 0 <= number < MAX_TOKENS or not isinstance(content, str):
        raise TokenizerError(f"{path}: an added token needs a content and an id, not {entry!r:.80}")
    flags = {
        name: entry.get(name) is True for name in ("lstrip", "rstrip", "single_word", "normalized")
    }
    return AddedToken(number, content, entry.get("special") is True, **flags)


def parse_merges(raw: Sequence[object], path: Path) -> list[tuple[str, str]]:
    """Merges from "a b" strings (the old form) or [a, b] pairs (since tokenizers 0.20)."""
    merges: list[tuple[str, str]] = []
    for item in raw:
        pair = item.split(" ") if isinstance(item, str) else item
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not isinstance(pair[0], str)
            or not isinstance(pair[1], str)
        ):
            raise TokenizerError(f"{path}: {item!r:.60} is no merge of two tokens")
        merges.append((pair[0], pair[1]))
    return merges
