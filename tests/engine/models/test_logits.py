"""The probe: outputs of a model for given tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.models.logits import Probe, embedding_of, logits_of


def test_logits_come_for_every_token_and_depend_on_the_past_only(tiny_model: Path) -> None:
    with Probe(tiny_model, n_threads=1) as probe:
        n_vocab = probe.model.vocab.n_tokens
        whole = probe.logits([5, 6, 7, 8])
        assert whole.shape == (4, n_vocab)
        np.testing.assert_allclose(probe.logits([5, 6]), whole[:2], atol=1e-4)
    np.testing.assert_allclose(logits_of(tiny_model, [5, 6, 7, 8]), whole, atol=1e-4)


def test_the_pooled_vector_is_one_row(tiny_model: Path) -> None:
    with Probe(tiny_model, n_threads=1) as probe:
        assert probe.embedding([5, 6, 7]).shape == (probe.model.n_embd,)
    assert np.isfinite(embedding_of(tiny_model, [5])).all()


@pytest.mark.parametrize("tokens", [[], [-1], [10**6]])
def test_tokens_outside_the_vocabulary_are_refused(tiny_model: Path, tokens: list[int]) -> None:
    with Probe(tiny_model, n_threads=1) as probe, pytest.raises(InvalidOption, match="tokens"):
        probe.logits(tokens)
