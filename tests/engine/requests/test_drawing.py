"""The draw in NumPy is the one of llama.cpp's chain: the same tokens, the same probabilities."""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.requests.drawing import Draw, Drawer, FloatArray, most_likely
from mofa_gguf.engine.requests.sampling import Sampler, SamplingOptions
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile

NEVER = -math.inf
N_POINTS = 4001
LAST = math.nextafter(1.0, 0.0)


@pytest.fixture(scope="module")
def vocab(tiny_model: Path) -> Iterator[Vocab]:
    with VocabFile(tiny_model) as file:
        yield file.vocab


def as_logits(values: list[float]) -> FloatArray:
    return np.array(values, np.float32)


def probabilities(draw: Draw, values: list[float]) -> dict[int, float]:
    tokens, shares = draw.kept(as_logits(values))
    return dict(zip(tokens.tolist(), (shares / shares.sum()).tolist(), strict=True))


def of_the_chain(vocab: Vocab, values: list[float], options: SamplingOptions) -> dict[int, float]:
    """What llama.cpp's own chain leaves of these logits, and how probable it is."""
    library = llama()
    sampler = Sampler(options, vocab, prompt=[], by_chain=True)
    entries = (library.llama_token_data * len(values))()
    for token, (entry, logit) in enumerate(zip(entries, values, strict=True)):
        entry.id, entry.logit, entry.p = token, logit, 0.0
    array = library.llama_token_data_array(entries, len(entries), -1, False)
    library.llama_sampler_apply(sampler._chain, ctypes.byref(array))
    sampler.close()
    return {array.data[i].id: array.data[i].p for i in range(array.size)}


def drawn(draw: Draw, values: list[float]) -> Counter[int]:
    """How many of evenly spaced points fall to each token."""
    return Counter(draw.choose(as_logits(values), (i + 0.5) / N_POINTS) for i in range(N_POINTS))


@given(
    values=st.lists(st.integers(-40, 40).map(lambda n: n / 4), min_size=1, max_size=60),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 1.8]),
    top_k=st.sampled_from([0, 0, 1, 3, 20]),
    top_p=st.sampled_from([0.0, 0.3, 0.8, 0.95, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    min_keep=st.sampled_from([1, 1, 3]),
)
def test_what_is_left_and_how_probable_is_what_the_chain_leaves(
    vocab: Vocab,
    values: list[float],
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    min_keep: int,
) -> None:
    shares = sorted((math.exp(value) for value in values), reverse=True)[: top_k or None]
    sums = [each / sum(shares) for each in accumulate(shares)]
    assume(all(abs(each - top_p) > 1e-5 for each in sums))  # else rounding decides
    least = math.log(min_p) if min_p else NEVER
    assume(all(abs(value - max(values) - least) > 1e-5 for value in values if min_p < 1))
    cuts = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "min_keep": min_keep}
    options = SamplingOptions(temperature=temperature, seed=1, **cuts)  # type: ignore[arg-type]
    theirs = of_the_chain(vocab, values, options)
    ours = probabilities(Draw(temperature, **cuts), values)  # type: ignore[arg-type]
    # Which of equally probable tokens are left is nobody's promise.
    assert sorted(ours.values()) == pytest.approx(sorted(theirs.values()), abs=2e-5)
    if top_p == 1.0 and not top_k:
        assert ours.keys() == theirs.keys()


@given(
    values=st.lists(st.integers(-400, 0).map(lambda n: n / 40), min_size=1, max_size=2000),
    top_p=st.floats(0.01, 0.9999),
)
def test_top_p_keeps_the_fewest_tokens_that_are_enough(values: list[float], top_p: float) -> None:
    kept = probabilities(Draw(1.0, top_p=top_p), values)
    shares = np.exp(np.array(values) - max(values))
    shares /= shares.sum()
    left = sorted((shares[token] for token in kept), reverse=True)
    assert left == pytest.approx(sorted(shares, reverse=True)[: len(kept)]), "the likeliest"
    assert sum(left) >= top_p - 1e-5
    assert sum(left[:-1]) <= top_p + 1e-5


@given(
    n_tokens=st.integers(5000, 20000),
    spread=st.sampled_from([0.1, 1.0, 8.0]),
    top_k=st.integers(1, 99),
)
def test_top_k_of_many_are_the_highest(n_tokens: int, spread: float, top_k: int) -> None:
    values = np.random.default_rng(top_k).permutation(n_tokens) * (-spread / n_tokens)
    kept = probabilities(Draw(1.0, top_k), values.tolist())
    assert set(kept) == set(np.argsort(-values)[:top_k].tolist())


@pytest.mark.parametrize(
    "draw", [Draw(1.0), Draw(0.5), Draw(2.0), Draw(1.3, 0, 0.9), Draw(1, 5), Draw(1, min_p=0.1)]
)
@pytest.mark.parametrize("n_tokens", [1, 7, 512, 513, 1500])
def test_each_token_is_drawn_as_often_as_it_is_probable(draw: Draw, n_tokens: int) -> None:
    values = (3 * np.random.default_rng(n_tokens).standard_normal(n_tokens)).tolist()
    counts = drawn(draw, values)
    expected = probabilities(draw, values)
    for token in range(n_tokens):
        share = expected.get(token, 0.0)
        assert abs(counts[token] - share * N_POINTS) < 1.01 + 1e-3 * N_POINTS * share, token


@pytest.mark.parametrize(
    "draw", [Draw(1.0), Draw(0.3), Draw(1.0, top_p=0.9), Draw(1.0, 3), Draw(1.0, min_p=0.01)]
)
@pytest.mark.parametrize("at", [0.0, 1e-9, 0.5, 1 - 1e-9, LAST])
def test_what_cannot_come_never_comes(draw: Draw, at: float) -> None:
    for n_tokens in (3, 600, 1600):
        for allowed in (0, n_tokens // 2, n_tokens - 1):
            values = [NEVER] * n_tokens
            values[allowed] = -3.0
            assert draw.choose(as_logits(values), at) == allowed


@pytest.mark.parametrize("draw", [Draw(1.0), Draw(0.5, 20, 0.9), Draw(1.0, min_p=0.1)])
@pytest.mark.parametrize("values", [[math.nan, 1.0], [NEVER, NEVER], [math.inf, 0.0]])
def test_what_is_no_number_is_an_error(draw: Draw, values: list[float]) -> None:
    with pytest.raises(EngineError, match="computed no probabilities"):
        draw.choose(as_logits(values), 0.5)
    with pytest.raises(EngineError, match="computed no probabilities"):
        most_likely(as_logits(values))


def test_a_seed_gives_the_same_draws_again() -> None:
    values = [1.0] * 50
    first, again, other = (
        [drawer(as_logits(values)) for _ in range(30)]
        for drawer in (Drawer(Draw(1.0), seed=seed) for seed in (4, 4, 5))
    )
    assert first == again != other


PLAIN: dict[str, dict[str, Any]] = {
    "the most likely": {"temperature": 0},
    "everything": {},
    "top-p": {"top_p": 0.9},
    "what models ask for": {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "min-p and temperature": {"min_p": 0.05, "temperature": 0.6},
    "biases": {"logit_bias": {66: 5.0}},
    "penalties": {"frequency_penalty": 0.5, "presence_penalty": 0.5, "repeat_penalty": 1.1},
}


@pytest.mark.parametrize("kind", PLAIN)
def test_the_chain_is_not_asked_for_the_usual(
    vocab: Vocab, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(llama(), "llama_sampler_sample")
    sampler = Sampler(SamplingOptions(seed=3, **PLAIN[kind]), vocab, prompt=[])
    assert 0 <= sampler.sample(None, 0, as_logits([0.0] * vocab.n_tokens)) < vocab.n_tokens
    sampler.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_biases_are_added_first(vocab: Vocab, temperature: float) -> None:
    options = SamplingOptions(temperature=temperature, logit_bias={66: 50.0, 67: -50.0}, seed=1)
    sampler = Sampler(options, vocab, prompt=[])
    values = [0.0] * vocab.n_tokens
    values[67] = 40.0
    assert sampler.sample(None, 0, as_logits(values)) == 66
    sampler.close()
