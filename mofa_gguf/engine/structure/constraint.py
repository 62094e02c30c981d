"""Constrained output: JSON, JSON Schema, regular expressions and Lark grammars as token masks.

llguidance (https://github.com/guidance-ai/llguidance) follows a grammar token by token and says
which tokens may come next. What a schema asks for and llguidance cannot enforce is refused by name
when the constraint is made; nothing is weakened in silence.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import llguidance
import numpy as np
from numpy.typing import NDArray

from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.structure import grammars
from mofa_gguf.engine.structure.grammars import Grammar, JsonSchema, Whitespace
from mofa_gguf.engine.tokens.token_table import special_tokens, token_table
from mofa_gguf.engine.tokens.vocab import Vocab

_N_CACHED_GRAMMARS = 64
# Real schemas stay far below: the states of a lexer take one to two kilobytes each.
_MAX_LEXER_STATES = 50_000
# llguidance repeats the grammar's line that it does not understand.
_LONGEST_PROBLEM = 600
_MAX_PIECE_BYTES = 64
_SAMPLE = 'Is it {"a": 1, "B": [true, "x y"]}?'


class ConstraintFactory:
    """Makes constraints for one model's vocabulary.

    ``eos`` are the ids that end a generation; a finished constraint allows all of them. The
    token table is built when the first constraint is asked for (about a second for 150 000
    tokens), and compiled grammars are kept. Safe to use from several threads.
    """

    def __init__(self, vocab: Vocab, *, eos: int | Sequence[int]) -> None:
        ids = [eos] if isinstance(eos, int) else list(dict.fromkeys(eos))
        if not ids or not all(0 <= token < vocab.n_tokens for token in ids):
            raise ConstraintError(
                f"a constraint needs the ids that end a generation, out of {vocab.n_tokens}; "
                f"got {ids}"
            )
        self._vocab = vocab
        self.eos = ids
        """The ids that end a generation."""
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._pieces: list[bytes] = []
        self._token_of: dict[bytes, int] = {}
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def json_object(self, *, compact: bool = False) -> Constraint:
        """Any JSON object; ``compact`` forbids white space between its tokens."""
        return self.json_schema({"type": "object"}, compact=compact)

    def json_schema(self, schema: JsonSchema | str, *, compact: bool = False) -> Constraint:
        """JSON that is valid under a JSON Schema; see ``grammars.json_schema``.

        Raises ConstraintError also for schemas that nothing satisfies.
        """
        whitespace: Whitespace = "compact" if compact else "short"
        return self.of(grammars.json_schema(schema, whitespace=whitespace))

    def regex(self, pattern: str) -> Constraint:
        """Text that matches a regular expression as a whole (the syntax of Rust's regex crate)."""
        return self.of(grammars.regex(pattern))

    def lark(self, grammar: str) -> Constraint:
        """Text of a grammar in llguidance's variant of Lark's syntax, from its rule ``start``."""
        return self.of(grammars.lark(grammar))

    def gbnf(self, grammar: str) -> Constraint:
        """Text of a grammar in llama.cpp's GBNF, from its rule ``root``."""
        return self.of(grammars.gbnf(grammar))

    def of(self, grammar: Grammar) -> Constraint:
        """A constraint of a grammar. Raises ConstraintError when it cannot be enforced."""
        with self._lock:
            tokenizer = self._table()
            prototype = self._compiled.get(grammar.text)
            if prototype is None:
                prototype = _compile(tokenizer, grammar)
                self._compiled[grammar.text] = prototype
                if len(self._compiled) > _N_CACHED_GRAMMARS:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar.text)
            return Constraint(prototype.deep_copy(), vocab=self._vocab)

    def maker(self, grammar: Grammar) -> Callable[[], Constraint]:
        """Makes constraints of a grammar, which is compiled now."""
        prototype = self.of(grammar)
        return prototype.copy

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for, control tokens included."""
        self._ready()
        return self._pieces[token]

    def spelled(self, data: bytes) -> list[int]:
        """Tokens that stand for these bytes, the longest first; none of them has a special meaning.

        Empty where the vocabulary cannot spell them.
        """
        self._ready()
        return self._spell(data)

    def _spell(self, data: bytes) -> list[int]:
        tokens, at = [], 0
        while at < len(data):
            longest = min(len(data), at + _MAX_PIECE_BYTES)
            ends = range(longest, at, -1)
            end = next((end for end in ends if data[at:end] in self._token_of), None)
            if end is None:
                return []
            tokens.append(self._token_of[data[at:end]])
            at = end
        return tokens

    def _gives_texts_back(self) -> bool:
        """Whether llama.cpp's tokens of a text spell that text.

        Not so where a vocabulary lacks a token for a blank, or changes letters. llguidance takes
        its tokenizer at its word.
        """
        tokens = self._vocab.tokenize(_SAMPLE)
        return b"".join(self._pieces[token] for token in tokens).lstrip() == _SAMPLE.encode()

    def _ready(self) -> None:
        if self._tokenizer is None:
            with self._lock:
                self._table()

    def _table(self) -> Any:
        """The token table; the lock is held."""
        if self._tokenizer is None:
            pieces = [self._vocab.piece(n, special=True) for n in range(self._vocab.n_tokens)]
            special = special_tokens(self._vocab, pieces, self.eos)
            self._pieces = pieces
            # Of several tokens with the same text the first is the usual one.
            for token in range(len(pieces) - 1, -1, -1):
                if pieces[token] and token not in special:
                    self._token_of[pieces[token]] = token
            greedy = None if self._gives_texts_back() else self._spell
            self._tokenizer = token_table(self._vocab, pieces, special, self.eos, greedy)
        return self._tokenizer


class TokenConstraint(Protocol):
    """Follows one generation and says which tokens may come next. For one thread at a time."""

    @property
    def stopped(self) -> bool:
        """Whether the output is complete: nothing may follow but an end of generation."""

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to minus infinity, in place."""

    def fitted(self, token: int) -> Sequence[int]:
        """The tokens to go on with when this one was chosen; mostly itself."""

    def accept(self, token: int) -> None:
        """The generation went on with this token."""

    def forced(self) -> list[int]:
        """The tokens that must come next, whatever the model thinks; often none."""


class Constraint:
    """Follows one generation and says which tokens may come next. For one thread at a time."""

    def __init__(self, matcher: Any, *, vocab: Vocab) -> None:
        self._matcher = matcher
        self._vocab = vocab  # llguidance keeps a bare pointer to it
        self._mask = np.zeros((vocab.n_tokens + 31) // 32, dtype=np.int32)

    @property
    def stopped(self) -> bool:
        """Whether the output is complete: nothing may follow but an end of generation."""
        return bool(self._matcher.is_stopped())

    @property
    def may_stop(self) -> bool:
        """Whether the output so far is valid, so that the generation may end here."""
        return bool(self._matcher.is_accepting())

    def copy(self) -> Constraint:
        """A constraint in the same state."""
        return Constraint(self._matcher.deep_copy(), vocab=self._vocab)

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether the generation may go on with these tokens."""
        return bool(self._matcher.validate_tokens(list(tokens)) == len(tokens))

    def fitted(self, token: int) -> Sequence[int]:
        """The tokens to go on with when this one was chosen: itself."""
        return (token,)

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to minus infinity, in place.

        ``logits`` has one value for each token of the vocabulary (more are masked). Ends of
        generation stay allowed exactly where the output may end. Raises ConstraintError when the
        grammar turns out too complex to follow.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        n_tokens = min(self._vocab.n_tokens, logits.shape[0])
        allowed = np.unpackbits(self._mask.view(np.uint8), count=n_tokens, bitorder="little")
        logits[:n_tokens][allowed == 0] = -np.inf
        logits[n_tokens:] = -np.inf

    def accept(self, token: int) -> None:
        """The generation went on with this token.

        Raises ConstraintError when the token was not allowed.
        """
        if not self._matcher.consume_token(token):
            self._check()
            raise ConstraintError(f"token {token} is not allowed by the constraint here")

    def forced(self) -> list[int]:
        """The tokens that must come next, whatever the model thinks; often none.

        They need not be sampled, but each has to be accepted.
        """
        tokens: list[int] = self._matcher.compute_ff_tokens()
        self._check()
        # A vocabulary may have no token for a text and llama.cpp spell it otherwise.
        return tokens[: self._matcher.validate_tokens(tokens)] if tokens else tokens

    def _check(self) -> None:
        if self._matcher.is_error():
            problem = _one_line(self._matcher.get_error())
            raise ConstraintError(f"the constraint cannot be followed any further: {problem}")


def _compile(tokenizer: Any, grammar: Grammar) -> Any:
    limits = llguidance.LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False)
    is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(
        grammar.text, tokenizer, limits=limits
    )
    # A warning says that something is enforced less strictly than it was asked for.
    if is_error or messages:
        problem = _one_line("; ".join(messages))
        raise ConstraintError(f"{grammar.what} cannot be enforced: {problem}")
    matcher = llguidance.LLMatcher(tokenizer, grammar.text, log_level=0, limits=limits)
    if matcher.is_error():
        problem = _one_line(matcher.get_error())
        raise ConstraintError(f"{grammar.what} cannot be enforced: {problem}")
    return matcher


def _one_line(problem: object) -> str:
    line = " ".join(str(problem).split())
    return line if len(line) <= _LONGEST_PROBLEM else f"{line[:_LONGEST_PROBLEM]}..."
