"""Texts to embed: how they share batches, and what comes out."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import InvalidOption, PromptTooLong
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.running.embedding import pack


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 200), st.integers(1, 9))
def test_batches_hold_every_input_once_in_order_and_no_more_than_they_may(
    lengths: list[int], n_batch: int, n_sequences: int
) -> None:
    batches = pack(lengths, n_batch=n_batch, n_sequences=n_sequences)
    assert [i for batch in batches for i in batch] == list(range(len(lengths)))
    for batch in batches:
        assert 0 < len(batch) <= n_sequences
        assert sum(lengths[i] for i in batch) <= n_batch
    for left, right in itertools.pairwise(batches):
        # A batch ends only where the next input had no place in it.
        full = len(left) == n_sequences
        assert full or sum(lengths[i] for i in left) + lengths[right[0]] > n_batch


def test_a_hundred_texts_get_the_vectors_they_get_alone(engine: Engine) -> None:
    texts = [[65 + i % 26] * (1 + i % 7) for i in range(100)]
    together = engine.embed(texts).result()
    assert len(together) == 100
    for text, vector in zip(texts[::17], together[::17], strict=True):
        alone = engine.embed([text]).result()[0]
        assert vector == pytest.approx(alone, abs=1e-5)
        assert math.hypot(*vector) == pytest.approx(1.0)


def test_vectors_keep_their_length_when_asked(engine: Engine) -> None:
    texts = [[65, 66], [67]]
    scaled = engine.embed(texts).result()
    own = engine.embed(texts, normalize=False).result()
    for unit, vector in zip(scaled, own, strict=True):
        length = math.hypot(*vector)
        assert length != pytest.approx(1.0, abs=0.01)
        assert [value / length for value in vector] == pytest.approx(unit, abs=1e-5)


@pytest.mark.parametrize("n_batch", [1, 2, 31])
def test_a_batch_may_be_as_small_as_one_likes(tiny_model: Path, n_batch: int) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1, n_embedding_batch=n_batch))
    vectors = engine.embed([[65] * min(n_batch, 3)] * 40).result()
    assert len(vectors) == 40
    assert vectors[0] == pytest.approx(vectors[39], abs=1e-5)
    engine.close()


def test_streams_go_on_between_batches_of_texts(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1, n_embedding_batch=16))
    stream = engine.submit(GenerationRequest([65, 66], max_tokens=60, ignore_eos=True))
    future = engine.embed([[65] * 16] * 20)
    *_, last = stream
    assert isinstance(last, FinishEvent)
    assert last.n_generated_tokens == 60
    assert len(future.result()) == 20
    engine.close()


def test_what_cannot_be_embedded_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(InvalidOption, match="empty"):
        engine.embed([[65], []])
    with pytest.raises(InvalidOption, match="0 to 258"):
        engine.embed([[65, 259]])
    with pytest.raises(PromptTooLong) as caught:
        engine.embed([[65] * 257])
    assert (caught.value.n_tokens, caught.value.n_ctx) == (257, 256)
