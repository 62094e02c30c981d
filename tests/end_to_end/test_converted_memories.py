"""Converted models that remember otherwise than by attention say in the engine what they should.

The next token after each prefix of a text is the one of transformers' logits, whatever else is in
the batch and whatever is cached.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mofa_gguf.convert import convert
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.convert.makers import PARITY

GREEDY = SamplingOptions(temperature=0)
LENGTHS = (3, 16, 7, 15, 8)
# Convolutions, gated delta nets, both Mambas beside attention, windows with shared keys.
FIXTURES = (
    *("lfm2-moe", "qwen3-next", "qwen35", "falcon-h1", "granite-hybrid", "nemotron-h-moe"),
    *("jamba", "mamba2", "gemma4", "gemma3n"),
)


def next_tokens(engine: Engine, prompts: list[list[int]]) -> list[int]:
    """The first token of the answer to each prompt, all asked at once."""
    requests = [
        GenerationRequest(tokens, GREEDY, max_tokens=1, ignore_eos=True) for tokens in prompts
    ]
    generations = [engine.submit(request) for request in requests]
    texts = [[event for event in events if isinstance(event, TextEvent)] for events in generations]
    return [events[0].tokens[0] for events in texts]


@pytest.mark.parametrize("fixture", FIXTURES)
def test_every_prefix_goes_on_as_in_transformers(fixture: str, tmp_path: Path) -> None:
    reference = np.load(PARITY / fixture / "reference.npz")
    tokens = reference["tokens"].tolist()
    expected = reference["logits"].argmax(axis=1)
    report = convert(PARITY / fixture, tmp_path / "m.gguf", "F32", threads=1, verify=False)
    options = EngineOptions(
        n_ctx=128, n_threads=1, cache_type_k="f32", cache_type_v="f32", max_parallel=3
    )
    engine = Engine.load(report.output, options)
    try:
        prompts = [tokens[:length] for length in LENGTHS]
        wanted = [int(expected[length - 1]) for length in LENGTHS]
        assert next_tokens(engine, prompts) == wanted
        assert next_tokens(engine, prompts[::-1]) == wanted[::-1]
    finally:
        engine.close()
