"""Documents in the order of how well they answer a query: an addition to MoFA's contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mofa_gguf.contract import ConfigError, ContextLengthExceeded
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.provider.loaded import LoadedModel

_RERANK_TEMPLATE = "tokenizer.chat_template.rerank"


@dataclass(frozen=True)
class RankedDocument:
    """A document with its place in the list that was given, and the model's judgement."""

    index: int
    document: str
    score: float
    """Higher fits better. On the model's own scale: a logit, or a probability of "yes"."""


@dataclass(frozen=True)
class Reranking:
    """The documents, best first."""

    model: str
    results: tuple[RankedDocument, ...]
    prompt_tokens: int


def check_rerank(query: str, documents: Sequence[str], top_n: int | None) -> None:
    """Raises ConfigError for what cannot be meant."""
    if not isinstance(documents, Sequence) or isinstance(documents, str | bytes):
        kind = "one text" if isinstance(documents, str) else f"of the type {_type(documents)}"
        raise ConfigError(f"documents is {kind}; give a list of texts", field="documents")
    if not documents:
        raise ConfigError("documents is empty; give at least one text", field="documents")
    named = {"query": query, **{f"documents.{n}": text for n, text in enumerate(documents)}}
    for name, text in named.items():
        if not isinstance(text, str):
            raise ConfigError(f"{name} is no text but of the type {_type(text)}", field=name)
    if not query:
        raise ConfigError("query is empty; say what the documents should answer", field="query")
    if top_n is None:
        return
    if not isinstance(top_n, int) or isinstance(top_n, bool) or top_n < 1:
        raise ConfigError(f"top_n = {top_n!r}: must be 1 or more, a whole number", field="top_n")


def _type(value: object) -> str:
    return type(value).__name__


def check_pairs(pairs: Sequence[Sequence[int]], n_max: int) -> None:
    """Raises ContextLengthExceeded, which names the document, for a pair of too many tokens."""
    for number, tokens in enumerate(pairs):
        if len(tokens) > n_max:
            raise ContextLengthExceeded(
                f"documents.{number} has, with the query, {len(tokens)} tokens and the model "
                f"judges {n_max} at a time; shorten one of them",
                n_tokens=len(tokens),
                n_ctx=n_max,
            )


def pair_tokens(model: LoadedModel, query: str, document: str) -> list[int]:
    """The tokens of a query and a document as the model reads them together.

    A model that is asked in words ("rerank" among its file's chat templates) has the two put into
    that text; in both, what looks like a control token is plain text.
    """
    template = model.header.metadata.get(_RERANK_TEMPLATE)
    if not isinstance(template, str):
        return model.vocab.pair(query, document)
    tokens: list[int] = []
    for n, (text, ours) in enumerate(_filled(template, query, document)):
        tokens += model.vocab.tokenize(text, parse_special=ours, continues=n > 0)
    return tokens


def _filled(template: str, query: str, document: str) -> list[tuple[str, bool]]:
    """The template's pieces and what is put between them; True for the template's own."""
    pieces: list[tuple[str, bool]] = []
    rest = template
    while rest:
        places = [(at, name) for name in _FIELDS if (at := rest.find(name)) >= 0]
        if not places:
            pieces.append((rest, True))
            break
        at, name = min(places)
        pieces += [(rest[:at], True), (query if name == "{query}" else document, False)]
        rest = rest[at + len(name) :]
    return [piece for piece in pieces if piece[0]]


_FIELDS = ("{query}", "{document}")


def ranked(
    documents: Sequence[str], outputs: Sequence[Sequence[float]], top_n: int | None
) -> tuple[RankedDocument, ...]:
    """The documents by the head's first output, best first; equals in the order they came."""
    scores = [output[0] for output in outputs]
    if any(score != score for score in scores):  # NaN
        raise EngineError("the model's scores are not numbers; its file may be damaged")
    order = sorted(range(len(documents)), key=lambda i: -scores[i])[:top_n]
    return tuple(RankedDocument(i, documents[i], scores[i]) for i in order)
