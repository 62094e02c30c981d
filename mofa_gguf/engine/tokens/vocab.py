"""A model's vocabulary as llama.cpp sees it: text to tokens, tokens to bytes."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from mofa_gguf.engine.errors import EngineError, VocabClosed
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.tokens.exact import ExactTokenizer, exact_tokenizer
from mofa_gguf.engine.tokens.spellings import TokenMemo, chunks, pattern_of
from mofa_gguf.engine.tokens.unwritable import Writable, has_all_bytes

_SPM, _BPE, _WORDPIECE = 1, 2, 3  # llama.h, enum llama_vocab_type
_USER_DEFINED = 16  # llama.h, LLAMA_TOKEN_ATTR_USER_DEFINED
_MOST_REMEMBERED = 4096
"""Tokens whose text is kept: an answer has some hundred different ones."""
_BUFFER = 64
_LONG_RUN = re.compile(r"\S{16384}|\s{16384}")


class Vocab:
    """Tokenizer of a loaded model.

    The pointer belongs to ``owner`` (a model handle), which is kept alive as long as this object.
    ``metadata`` are the file's: it may hold what llama.cpp needs to tokenize as the model's own
    tokenizer does, see :mod:`mofa_gguf.engine.tokens.exact`. Safe to use from several threads.
    """

    def __init__(
        self,
        pointer: Any,
        *,
        owner: object,
        metadata: Mapping[str, Any] | None = None,
        path: Path | str = "",
    ) -> None:
        self._open_pointer: Any | None = pointer
        self._owner = owner
        self._llama = llama()
        self.n_tokens: int = self._llama.llama_vocab_n_tokens(pointer)
        self._is_bpe = self._llama.llama_vocab_type(pointer) == _BPE
        self._is_spm = self._llama.llama_vocab_type(pointer) == _SPM
        self._is_wordpiece = self._llama.llama_vocab_type(pointer) == _WORDPIECE
        self._metadata = metadata or {}
        self._path = Path(path)
        self._memo = TokenMemo()
        self._pieces: dict[bool, dict[int, bytes]] = {False: {}, True: {}}
        self._buffers: list[Any] = []
        """Those of calls that are over: making one takes longer than the call."""

    @cached_property
    def exact(self) -> ExactTokenizer | None:
        """What the file holds beside llama.cpp's vocabulary; None where that is enough.

        Made when first asked for. Raises ModelFileError when it is damaged.
        """
        return exact_tokenizer(self, self._metadata, self._path)

    @cached_property
    def _writable(self) -> Writable | None:
        """What replaces text that would end the process; None where there is no such text."""
        if not self._is_spm or has_all_bytes(self.text, self.n_tokens):
            return None
        texts = [self.text(i) for i in range(self.n_tokens)]
        return Writable(texts, user_defined=self.user_defined_texts(), control=self.control_texts())

    @cached_property
    def _cuts(self) -> re.Pattern[str] | None:
        return pattern_of(self.control_texts())

    @property
    def pointer(self) -> Any:
        """``const llama_vocab *``, for calls into llama.cpp.

        Every call asks for it here, so that none reaches memory that llama.cpp has freed. Raises
        VocabClosed after :meth:`close`.
        """
        pointer = self._open_pointer
        if pointer is None:
            raise VocabClosed(self._path)
        return pointer

    def close(self) -> None:
        """The owner's word that it frees the vocabulary; may be called twice.

        From here on whatever asks llama.cpp raises VocabClosed, and so does what would have been
        remembered. No other thread may be within a call: the owner sees to that.
        """
        self._open_pointer = None
        self._memo = TokenMemo()
        for pieces in self._pieces.values():
            pieces.clear()

    def tokenize(
        self,
        text: str,
        *,
        add_special: bool = False,
        parse_special: bool = False,
        continues: bool = False,
    ) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` adds what the model wants around a text (bos, eos, [CLS], [SEP]);
        ``parse_special`` reads control tokens written out in the text as tokens; ``continues``
        says that other text stands right before, so that no space is put in front. Raises
        EngineError if the text cannot be tokenized, ModelFileError for a damaged :attr:`exact`.
        """
        exact = self.exact
        if exact is None:
            return self.tokenize_natively(
                text, add_special=add_special, parse_special=parse_special, continues=continues
            )
        tokens = exact.tokenize(text, parse_special=parse_special, continues=continues)
        return self._surround(tokens) if add_special else tokens

    def tokenize_natively(
        self,
        text: str,
        *,
        add_special: bool = False,
        parse_special: bool = False,
        continues: bool = False,
    ) -> list[int]:
        """Like :meth:`tokenize`, but by llama.cpp alone, as other programs read the file.

        A run of more than 16,384 characters with or without white space is cut there, because
        llama.cpp's regular expressions recurse once a character.
        """
        if not self._is_bpe:
            if continues and text:
                return self._tokenize_behind_a_newline(text, parse_special)
            return self._tokenize(text, add_special, parse_special)
        if parse_special and not add_special:
            # A prompt: the parts of a conversation come again in the next one.
            parts = chunks(text, self._cuts)
            return [t for part in parts for t in self._memo.tokens(part, self._with_special)]
        return self._in_runs(text, add_special, parse_special)

    def _with_special(self, text: str) -> list[int]:
        return self._in_runs(text, False, True)

    def _in_runs(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        cuts = [found.end() for found in _LONG_RUN.finditer(text)]
        if not cuts:
            return self._tokenize(text, add_special, parse_special)
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        tokens = [t for piece in pieces for t in self._tokenize(piece, False, parse_special)]
        return self._surround(tokens) if add_special else tokens

    def _surround(self, tokens: list[int]) -> list[int]:
        """What the model wants around a text, around ``tokens``."""
        around = self._tokenize("", True, False)
        n_before = int(self.add_bos and self.bos is not None)
        return [*around[:n_before], *tokens, *around[n_before:]]

    def _tokenize_behind_a_newline(self, text: str, parse_special: bool) -> list[int]:
        """Tokens of a text that goes on: SentencePiece puts a space before a text's beginning."""
        before = self._tokenize("\n", False, False)
        tokens = self._tokenize("\n" + text, False, parse_special)
        if tokens[: len(before)] == before:
            return tokens[len(before) :]
        return self._tokenize(text, False, parse_special)

    def _tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        if self._writable is not None:
            text = self._writable(text, parse_special=parse_special)
        data = text.encode("utf-8", errors="surrogatepass")
        capacity = len(data) + 8
        for _ in range(2):
            buffer = (self._llama.llama_token * capacity)()
            n = self._llama.llama_tokenize(
                self.pointer, data, len(data), buffer, capacity, add_special, parse_special
            )
            if n >= 0:
                return list(buffer[:n])
            capacity = -n
        raise EngineError(f"llama.cpp could not tokenize a text of {len(data)} bytes")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes a token stands for; control tokens give b"" unless ``special``."""
        pieces = self._pieces[special]
        known = pieces.get(token)
        if known is None:
            if len(pieces) >= _MOST_REMEMBERED:
                pieces.clear()
            known = pieces[token] = self._piece(token, special=special)
        return known

    def _piece(self, token: int, *, special: bool) -> bytes:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = ctypes.create_string_buffer(_BUFFER)
        for _ in range(2):
            size = len(buffer)
            n = self._llama.llama_token_to_piece(self.pointer, token, buffer, size, 0, special)
            if n >= 0:
                piece: bytes = buffer.raw[:n]
                self._buffers.append(buffer)
                return piece
            buffer = ctypes.create_string_buffer(-n)
        raise EngineError(f"llama.cpp has no text for token {token}")

    def detokenize(
        self, tokens: list[int], *, remove_special: bool = False, unparse_special: bool = False
    ) -> str:
        """Text of ``tokens``; bytes that are no UTF-8 become U+FFFD."""
        array = (self._llama.llama_token * max(1, len(tokens)))(*tokens)
        capacity = 16 * len(tokens) + 16
        for _ in range(2):
            buffer = ctypes.create_string_buffer(capacity)
            n = self._llama.llama_detokenize(
                self.pointer,
                array,
                len(tokens),
                buffer,
                capacity,
                remove_special,
                unparse_special,
            )
            if n >= 0:
                return buffer.raw[:n].decode("utf-8", errors="replace")
            capacity = -n
        raise EngineError(f"llama.cpp could not detokenize {len(tokens)} tokens")

    def text(self, token: int) -> str:
        """The token's entry in the vocabulary, as it is stored there."""
        raw: bytes = self._llama.llama_vocab_get_text(self.pointer, token)
        return raw.decode("utf-8", errors="replace")

    def is_eog(self, token: int) -> bool:
        """Whether llama.cpp takes the token for an end of generation."""
        return bool(self._llama.llama_vocab_is_eog(self.pointer, token))

    def is_control(self, token: int) -> bool:
        """Whether the token is a control token (no text of its own)."""
        return bool(self._llama.llama_vocab_is_control(self.pointer, token))

    def control_texts(self) -> list[str]:
        """The spellings of all control tokens."""
        return [self.text(i) for i in range(self.n_tokens) if self.is_control(i)]

    def user_defined_texts(self) -> list[str]:
        """The spellings of all user-defined tokens."""
        attribute = self._llama.llama_vocab_get_attr
        return [
            self.text(i) for i in range(self.n_tokens) if attribute(self.pointer, i) & _USER_DEFINED
        ]

    def tag_texts(self) -> list[str]:
        """The spellings of user-defined tokens that look like tags, such as ``<tool_call>``."""
        found = self.user_defined_texts()
        return [text for text in found if text[:1] in "<[" and text[-1:] in ">]"]

    @property
    def suppressed(self) -> list[int]:
        """Tokens that the model's file says must never be generated."""
        n_tokens = ctypes.c_int32()
        found = self._llama.llama_vocab_get_suppress_tokens(self.pointer, ctypes.byref(n_tokens))
        return list(found[: n_tokens.value]) if found else []

    def _optional(self, token: int) -> int | None:
        return None if token < 0 else token

    @property
    def bos(self) -> int | None:
        """Id of the beginning-of-sequence token, if there is one."""
        return self._optional(self._llama.llama_vocab_bos(self.pointer))

    @property
    def eos(self) -> int | None:
        """Id of the end-of-sequence token, if there is one."""
        return self._optional(self._llama.llama_vocab_eos(self.pointer))

    @property
    def sep(self) -> int | None:
        """Id of the token between two texts, if there is one."""
        return self._optional(self._llama.llama_vocab_sep(self.pointer))

    def pair(self, first: str, second: str) -> list[int]:
        """Tokens of two texts that the model reads together, with what it wants around each.

        Behind the first stands what stands behind any text, and the separator where the model
        wants one besides.
        """
        around = self._tokenize("", True, False)
        n_before = int(self.add_bos and self.bos is not None)
        before, behind = around[:n_before], around[n_before:]
        between = list(behind)
        sep = self.sep
        # WordPiece's separator is what stands behind any text.
        if sep is not None and not self._is_wordpiece:
            between += [sep] * self._llama.llama_vocab_get_add_sep(self.pointer)
        return [*before, *self.tokenize(first), *between, *self.tokenize(second), *behind]

    @property
    def add_bos(self) -> bool:
        """Whether the model wants bos in front of a text."""
        return bool(self._llama.llama_vocab_get_add_bos(self.pointer))

    @property
    def add_eos(self) -> bool:
        """Whether the model wants eos behind a text."""
        return bool(self._llama.llama_vocab_get_add_eos(self.pointer))
