"""Constrained output: JSON, JSON Schema, regular expressions and Lark grammars as token masks.

llguidance (https://github.com/guidance-ai/llguidance) follows a grammar token by token and says
which tokens may come next. What a schema asks for and llguidance cannot enforce is refused by name
when the constraint is made; nothing is weakened in silence.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance
import numpy as np
from numpy.typing import NDArray

from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.vocab import Vocab

JsonSchema = Mapping[str, Any] | bool

# Between JSON's tokens: a space, or a line break with its indentation. A model that has nothing to
# say goes on with line breaks otherwise.
_WHITESPACE = r" |\r?\n[ \t]{0,32}"
_N_CACHED_GRAMMARS = 32
# llama.h, enum llama_token_attr.
_UNKNOWN, _UNUSED, _CONTROL, _USER_DEFINED = 1, 2, 8, 16


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
        self._eos = ids
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._compiled: OrderedDict[str, Any] = OrderedDict()

    def json_object(self, *, compact: bool = False) -> Constraint:
        """Any JSON object; ``compact`` forbids white space between its tokens."""
        return self.json_schema({"type": "object"}, compact=compact)

    def json_schema(self, schema: JsonSchema | str, *, compact: bool = False) -> Constraint:
        """JSON that is valid under a JSON Schema (a mapping, a bool, or its JSON text).

        Properties come in the schema's order. Raises ConstraintError naming what cannot be
        enforced (``not``, ``uniqueItems``, an unknown format), and for schemas that nothing
        satisfies.
        """
        try:
            if isinstance(schema, str):
                schema = json.loads(schema)
            if schema is False:
                raise ConstraintError("the JSON schema cannot be enforced: nothing satisfies false")
            text = "{}" if schema is True else json.dumps(schema)
            # A schema may carry options of llguidance's own ("x-guidance"); ours stand above them.
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                text,
                overrides={
                    "lenient": False,
                    "coerce_one_of": False,
                    "whitespace_flexible": not compact,
                    "whitespace_pattern": None if compact else _WHITESPACE,
                    "item_separator": ",",
                    "key_separator": ":",
                },
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise ConstraintError(f"this is no JSON schema: {_one_line(error)}") from error
        return self._constraint(grammar, "the JSON schema")

    def regex(self, pattern: str) -> Constraint:
        """Text that matches a regular expression as a whole (the syntax of Rust's regex crate)."""
        return self._constraint(
            llguidance.LLMatcher.grammar_from_regex(pattern), "the regular expression"
        )

    def lark(self, grammar: str) -> Constraint:
        """Text of a grammar in llguidance's variant of Lark's syntax, from its rule ``start``."""
        return self._constraint(llguidance.LLMatcher.grammar_from_lark(grammar), "the grammar")

    def _constraint(self, grammar: str, what: str) -> Constraint:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _token_table(self._vocab, self._eos)
            prototype = self._compiled.get(grammar)
            if prototype is None:
                prototype = _compile(self._tokenizer, grammar, what)
                self._compiled[grammar] = prototype
                if len(self._compiled) > _N_CACHED_GRAMMARS:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return Constraint(prototype.deep_copy(), vocab=self._vocab)


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
        return tokens

    def _check(self) -> None:
        if self._matcher.is_error():
            problem = _one_line(self._matcher.get_error())
            raise ConstraintError(f"the constraint cannot be followed any further: {problem}")


def _compile(tokenizer: Any, grammar: str, what: str) -> Any:
    limits = llguidance.LLParserLimits(verbose_errors=False)
    is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(
        grammar, tokenizer, limits=limits
    )
    # A warning says that something is enforced less strictly than it was asked for.
    if is_error or messages:
        raise ConstraintError(f"{what} cannot be enforced: {_one_line('; '.join(messages))}")
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise ConstraintError(f"{what} cannot be enforced: {_one_line(matcher.get_error())}")
    return matcher


def _token_table(vocab: Vocab, eos: list[int]) -> Any:
    """llguidance's tokenizer for a llama.cpp vocabulary.

    Tokens without text of their own are marked by a byte 0xff in front, which no text contains:
    control tokens, the ids that end a generation, entries that are unused or unknown, and tokens
    that users defined to look like tags.
    """
    library = llama()
    tokens = []
    for token in range(vocab.n_tokens):
        piece = vocab.piece(token, special=True)
        attributes = library.llama_vocab_get_attr(vocab.pointer, token)
        is_tag = attributes & _USER_DEFINED and piece.startswith(b"<") and piece.endswith(b">")
        if is_tag or attributes & (_UNKNOWN | _UNUSED | _CONTROL) or token in eos:
            piece = b"\xff" + (piece or f"<token {token}>".encode())
        tokens.append(piece)
    address = ctypes.cast(library._lib.llama_tokenize, ctypes.c_void_p).value
    # What llguidance.llamacpp does, with the marks above.
    return llguidance.LLTokenizer.from_llamacpp(
        tokens=tokens,
        vocab_ptr=vocab.pointer,
        tokenize_fptr=address,
        eos_token=eos,
        slices=None,
    )


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())
