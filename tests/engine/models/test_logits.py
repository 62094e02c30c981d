"""The probe: outputs of a model for given tokens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.models import loading
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


def test_a_file_whose_header_was_read_is_not_read_again(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_header(tiny_model)
    monkeypatch.setattr(loading, "read_header", pytest.fail)
    with Probe(header, n_threads=1) as probe:
        assert probe.model.header is header
        assert probe.logits([5, 6]).shape == (2, probe.model.vocab.n_tokens)


def test_a_plain_load_brings_nothing_that_only_other_loads_need(tiny_model: Path) -> None:
    code = (
        "import sys; from mofa_gguf.engine.models.logits import Probe\n"
        "with Probe(sys.argv[1], n_threads=1) as probe: probe.logits([5])\n"
        "print(*sys.modules)"
    )
    run = [sys.executable, "-c", code, str(tiny_model)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    ours = {name.removeprefix("mofa_gguf.engine.") for name in loaded}
    assert "planning.planner" in ours
    assert not ours & {
        *("machine.rpc", "machine.rpc_absent", "machine.rpc_guard", "machine.hugepages"),
        *("planning.adapters", "planning.dry_load", "planning.remedies", "speculation.policy"),
    }
    if sys.platform == "linux":
        assert "psutil" not in loaded


@pytest.mark.parametrize("tokens", [[], [-1], [10**6]])
def test_tokens_outside_the_vocabulary_are_refused(tiny_model: Path, tokens: list[int]) -> None:
    with Probe(tiny_model, n_threads=1) as probe, pytest.raises(InvalidOption, match="tokens"):
        probe.logits(tokens)
