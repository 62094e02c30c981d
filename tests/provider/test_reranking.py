"""Documents in the order that a reranker puts them in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf import (
    ConfigError,
    ContextLengthExceeded,
    GGUFConfig,
    GGUFProvider,
    ProviderNotSupported,
)
from mofa_gguf.provider.reranking import _filled

CHECKPOINT = Path(__file__).resolve().parents[1] / "data" / "rerankers" / "roberta"
EXPECTED = [
    each
    for each in json.loads((CHECKPOINT / "expected.json").read_text("utf-8"))
    if each["query"] == "what is a cat"
]
DOCUMENTS = [each["document"] for each in EXPECTED]


@pytest.fixture
async def reranker(tmp_path: Path) -> AsyncIterator[GGUFProvider]:
    config = GGUFConfig(
        model=str(CHECKPOINT),
        cache_dir=tmp_path,
        quantization="F32",
        n_threads=1,
        flash_attn="off",
    )
    async with GGUFProvider(config) as opened:
        yield opened


async def test_documents_come_best_first_with_the_models_scores(reranker: GGUFProvider) -> None:
    found = await reranker.rerank("what is a cat", DOCUMENTS)
    best_first = sorted(EXPECTED, key=lambda each: -each["score"])
    assert [each.document for each in found.results] == [each["document"] for each in best_first]
    assert [each.document for each in found.results] == [DOCUMENTS[r.index] for r in found.results]
    assert [each.score for each in found.results] == pytest.approx(
        [each["score"] for each in best_first], abs=1e-2
    )
    assert found.prompt_tokens == sum(len(each["tokens"]) for each in EXPECTED)
    assert found.model == "roberta"


async def test_only_the_best_are_given_when_asked(reranker: GGUFProvider) -> None:
    everything = await reranker.rerank("what is a cat", DOCUMENTS)
    best = await reranker.rerank("what is a cat", DOCUMENTS, 1)
    assert best.results == everything.results[:1]
    assert (await reranker.rerank("what is a cat", DOCUMENTS, 99)).results == everything.results


async def test_a_document_that_is_too_long_is_refused_with_both_numbers(
    reranker: GGUFProvider,
) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        await reranker.rerank("it", ["x" * 500])
    assert (caught.value.n_tokens, caught.value.n_ctx) == (506, 64)
    assert caught.value.message.startswith("documents.0 has, with the query, 506 tokens")


async def test_of_several_documents_the_one_that_is_too_long_is_named(
    reranker: GGUFProvider,
) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"documents\.1 has, with the query") as caught:
        await reranker.rerank("it", ["a", "x" * 500, "b", "x" * 600])
    assert "the model judges 64 at a time" in caught.value.message
    assert "n_ctx" not in caught.value.message
    best = await reranker.rerank("it", ["a", "b"])
    assert len(best.results) == 2


@pytest.mark.parametrize(
    ("query", "documents", "top_n", "field"),
    [
        ("", ["a"], None, "query"),
        ("a", [], None, "documents"),
        ("a", "one text", None, "documents"),
        ("a", ["b"], 0, "top_n"),
        ("a", ["b"], -1, "top_n"),
        ("a", ["b"], True, "top_n"),
        ("a", ["b"], "1", "top_n"),
        ("a", ["b"], 1.0, "top_n"),
        (None, ["b"], None, "query"),
        (5, ["b"], None, "query"),
        (b"a", ["b"], None, "query"),
        ("a", None, None, "documents"),
        ("a", 5, None, "documents"),
        ("a", b"one text", None, "documents"),
        ("a", {"b": 1}, None, "documents"),
        ("a", {"b", "c"}, None, "documents"),
        ("a", (text for text in "bc"), None, "documents"),
        ("a", [5], None, "documents.0"),
        ("a", ["b", None], None, "documents.1"),
        ("a", ["b", "c", b"d"], None, "documents.2"),
        ("a", [["b"]], None, "documents.0"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_name(
    reranker: GGUFProvider, query: Any, documents: Any, top_n: Any, field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await reranker.rerank(query, documents, top_n)
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


async def test_odd_texts_are_judged_like_any_other(reranker: GGUFProvider) -> None:
    found = await reranker.rerank(" ", ("", "\x00", "\ud800"))
    assert sorted(each.index for each in found.results) == [0, 1, 2]


async def test_a_model_that_is_no_reranker_says_so(provider: GGUFProvider) -> None:
    with pytest.raises(ProviderNotSupported, match="no reranker"):
        await provider.rerank("a", ["b"])


async def test_a_reranker_neither_chats_nor_embeds(reranker: GGUFProvider) -> None:
    await reranker.load()
    assert not reranker.supports_embedding()
    assert not reranker.supports_tools()


def test_texts_put_into_a_template_are_not_searched_for_places() -> None:
    filled = _filled("<q>{query}</q><d>{document}</d>", "a {document}", "b {query}")
    assert filled == [
        ("<q>", True),
        ("a {document}", False),
        ("</q><d>", True),
        ("b {query}", False),
        ("</d>", True),
    ]
