"""Documents in the order of how well they answer a query: an addition to MoFA's contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mofa_gguf.contract import ConfigError
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
    if isinstance(documents, str):
        raise ConfigError("documents is one text; give a list of texts", field="documents")
    if not documents:
        raise ConfigError("documents is empty; give at least one text", field="documents")
    if not query:
        raise ConfigError("query is empty; say what the documents should answer", field="query")
    if top_n is not None and top_n < 1:
        raise ConfigError(f"top_n = {top_n!r}: must be 1 or more", field="top_n")


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
