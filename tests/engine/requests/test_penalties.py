"""Penalties in place change logits as llama.cpp's own samplers do."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.native import llama
from mofa_gguf.engine.requests.penalties import Penalties
from mofa_gguf.engine.requests.sampling import Sampler, SamplingOptions
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile

N = 12
TOKENS = st.lists(st.integers(0, N - 1), max_size=30)


@pytest.fixture(scope="module")
def vocab(tiny_model: Path) -> Iterator[Vocab]:
    with VocabFile(tiny_model) as file:
        yield file.vocab


def by_the_chain(sampler: Sampler, values: list[float]) -> dict[int, float]:
    library = llama()
    entries = (library.llama_token_data * len(values))()
    for token, (entry, logit) in enumerate(zip(entries, values, strict=True)):
        entry.id, entry.logit, entry.p = token, logit, 0.0
    array = library.llama_token_data_array(entries, len(entries), -1, False)
    library.llama_sampler_apply(sampler._chain, ctypes.byref(array))
    return {array.data[i].id: array.data[i].logit for i in range(array.size)}


@given(
    values=st.lists(st.integers(-50, 50).map(lambda n: n / 8), min_size=N, max_size=N),
    prompt=TOKENS,
    answer=TOKENS,
    repeat=st.sampled_from([0.8, 1.0, 1.3, 3.0]),
    last_n=st.sampled_from([-1, 0, 1, 4, 64]),
    frequency=st.sampled_from([-0.5, 0.0, 0.7]),
    presence=st.sampled_from([-0.5, 0.0, 1.5]),
)
def test_they_are_those_of_the_chain(
    vocab: Vocab,
    values: list[float],
    prompt: list[int],
    answer: list[int],
    repeat: float,
    last_n: int,
    frequency: float,
    presence: float,
) -> None:
    options = SamplingOptions(
        temperature=1.0, seed=1, repeat_penalty=repeat, repeat_last_n=last_n,
        frequency_penalty=frequency, presence_penalty=presence,
    )  # fmt: skip
    chain = Sampler(options, vocab, prompt=prompt, by_chain=True)
    plain = Sampler(options, vocab, prompt=prompt)
    for token in answer:
        chain.accept(token)
        plain.accept(token)
    theirs = by_the_chain(chain, values)
    ours = np.array(values, np.float32)
    if plain._penalties is not None:
        plain._penalties.apply(ours)
    chain.close()
    plain.close()
    assert dict(enumerate(ours.tolist())) == pytest.approx(theirs, abs=1e-5)


def test_what_is_sampled_counts_itself(vocab: Vocab) -> None:
    options = SamplingOptions(temperature=0, presence_penalty=2.0)
    sampler = Sampler(options, vocab, prompt=[])
    logits = np.zeros(vocab.n_tokens, np.float32)
    logits[:3] = 3.0, 2.5, 2.0
    chosen = [sampler.sample(None, 0, logits.copy()) for _ in range(4)]
    sampler.close()
    assert chosen == [0, 1, 2, 0]


def test_a_window_forgets_what_left_it() -> None:
    penalties = Penalties(repeat=2.0, last_n=2, frequency=0.0, presence=0.0, prompt=[1, 1, 2])
    for token, punished in ((3, {2, 3}), (3, {3}), (4, {3, 4}), (5, {4, 5})):
        penalties.accept(token)
        logits = np.ones(8, np.float32)
        penalties.apply(logits)
        assert set(np.flatnonzero(logits < 1).tolist()) == punished


def test_a_huge_penalty_leaves_numbers() -> None:
    penalties = Penalties(repeat=1e300, last_n=9, frequency=0.0, presence=0.0, prompt=[0, 1, 2])
    logits = np.array([-3.0, 0.0, 3.0, 1.0], np.float32)
    penalties.apply(logits)
    assert np.isfinite(logits).all()
    assert logits.argmax() == 3
