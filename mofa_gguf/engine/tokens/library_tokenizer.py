"""Tokenizers run by the `tokenizers` library: each text loaded once, used by all who have it.

Loading one takes the library up to a second, with Python's lock held, and hundreds of megabytes.
Models of one family keep the same text, and the converter reads back what it has just run.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Collection
from typing import Any, TypeVar

T = TypeVar("T")


class LibraryFailure(Exception):
    """The `tokenizers` library failed; the text is its first line."""


def shielded(call: Callable[[], T]) -> T:
    """Run a call into the `tokenizers` library; whatever it throws becomes LibraryFailure.

    The library raises bare Exception, and a panic of its Rust code arrives as a PanicException,
    which derives from BaseException and cannot be imported.
    """
    try:
        return call()
    except Exception as error:
        raise LibraryFailure(_first_line(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise LibraryFailure(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:200]


class LibraryTokenizer:
    """A tokenizer.json's Tokenizer that neither pads nor cuts nor leaves anything to chance.

    ``special`` are the spellings of the added tokens that its text calls special: plain text does
    not give them. Safe to use from several threads. Get one with :func:`library_tokenizer`.
    """

    def __init__(self, text: str) -> None:
        self._lock = threading.Lock()
        self._library = shielded(lambda: _load(text))
        self.special = frozenset(t.content for t in self.added().values() if t.special)

    @property
    def normalizer(self) -> Any:
        """The library's Normalizer, or None."""
        return self._library.normalizer

    @property
    def pre_tokenizer(self) -> Any:
        """The library's PreTokenizer, or None."""
        return self._library.pre_tokenizer

    def added(self) -> dict[int, Any]:
        """The library's AddedToken of each id that has one. Raises LibraryFailure."""
        found: dict[int, Any] = shielded(self._library.get_added_tokens_decoder)
        return found

    def make_special(self, spellings: frozenset[str]) -> None:
        """Keep plain text from giving these added tokens too. Raises LibraryFailure."""
        found = [token for token in self.added().values() if token.content in spellings]
        shielded(lambda: self._library.add_special_tokens(found))

    def encode(
        self, text: str, *, parse_special: bool = False, add_special: bool = False
    ) -> list[int]:
        """Token ids of ``text``; see :meth:`mofa_gguf.engine.tokens.vocab.Vocab.tokenize`.

        Raises LibraryFailure.
        """
        with self._lock:
            self._library.encode_special_tokens = not parse_special
            encoding = shielded(lambda: self._library.encode(text, add_special_tokens=add_special))
        tokens: list[int] = encoding.ids
        return tokens


def _load(text: str) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    # Neither belongs to the vocabulary, and a huge padding length would fill the memory.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        tokenizer.model.dropout = None
    return tokenizer


_loading = threading.Lock()
_loaded: weakref.WeakValueDictionary[tuple[bytes, frozenset[str]], LibraryTokenizer] = (
    weakref.WeakValueDictionary()
)
"""By the text's digest and the tokens that were made special."""


def library_tokenizer(
    text: str, control_of: Callable[[dict[int, Any]], Collection[str]]
) -> LibraryTokenizer:
    """The tokenizer of the tokenizer.json ``text``, the one that is there or a new one.

    ``control_of`` is told its added tokens and says which of them plain text must not give,
    whatever ``text`` calls special; only who needs the same shares one. It lives as long as
    somebody holds it. Raises LibraryFailure.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    with _loading:
        other = next((found for key, found in _loaded.items() if key[0] == digest), None)
        tokenizer = other or LibraryTokenizer(text)
        made_special = frozenset(control_of(tokenizer.added())) - tokenizer.special
        key = (digest, made_special)
        if other is not None:
            shared = _loaded.get(key)
            if shared is not None:
                return shared
            tokenizer = LibraryTokenizer(text)
        tokenizer.make_special(made_special)
        _loaded[key] = tokenizer
        return tokenizer
