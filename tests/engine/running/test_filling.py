"""A token more where that makes a batch faster: nobody sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.attention import TileCost
from mofa_gguf.engine.planning.repack import tokens_at_once
from mofa_gguf.engine.planning.sizing import BLOCK
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.running.filling import Filling
from mofa_gguf.engine.scheduling.scheduler import Piece, Task
from tools.bench.model import Shape, write_model

SMALL = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=4, n_ff=512, n_vocab=600, n_ctx=512)
OPTIONS = EngineOptions(n_threads=1, speculation="off")


@pytest.fixture(scope="module")
def repacked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("filling") / "q4.gguf", SMALL)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are computed."""
    sizes: list[int] = []
    fill = Context.fill

    def noted(self: Context, tokens: list[int], *rest: list[int]) -> None:
        sizes.append(len(tokens))
        fill(self, tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Context, "fill", noted)
    return sizes


def answers(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    requests = [
        GenerationRequest(p, SamplingOptions(temperature=0), max_tokens=6, ignore_eos=True)
        for p in prompts
    ]
    told = []
    for stream in [engine.submit(request) for request in requests]:
        *events, last = stream
        assert isinstance(last, FinishEvent)
        told.append([t for e in events if isinstance(e, TextEvent) for t in e.tokens])
    return told


def piece(start: int, n_tokens: int) -> Piece:
    return Piece(Task([1] * (start + n_tokens)), 0, start, [1] * n_tokens, is_last=True)


def test_a_batch_is_filled_for_tiles_first_and_only_as_far_as_there_is_room() -> None:
    filling = Filling(9, at_once=BLOCK, tiles=TileCost(1e-3))
    long, short = [piece(2000, 39)], [piece(0, 39)]
    assert filling.n_tokens(long, room=100) == 25
    assert filling.n_tokens(long, room=24) == 1
    assert filling.n_tokens(short, room=100) == 1
    assert filling.n_tokens(short, room=0) == 0
    assert Filling(9, at_once=0, tiles=None).n_tokens(long, room=100) == 0


def test_with_flash_attention_a_prompt_of_sixty_tokens_is_computed_as_a_tile(
    repacked_model: Path, batches: list[int]
) -> None:
    engine = Engine.load(repacked_model, replace(OPTIONS, flash_attn="on"))
    try:
        (answer,) = answers(engine, [[1, *range(300, 359)]])
        assert batches[0] == 64
        worker = engine._worker
        assert worker is not None
        assert worker.cache.n_used == 60 + len(answer) - 1
    finally:
        engine.close()


def test_a_prompt_of_seven_tokens_is_computed_as_eight_and_leaves_seven_cells(
    repacked_model: Path, batches: list[int]
) -> None:
    if tokens_at_once(read_header(repacked_model).tensors) != BLOCK:
        pytest.skip("this build does not multiply weights with four tokens at a time")
    engine = Engine.load(repacked_model, OPTIONS)
    try:
        (answer,) = answers(engine, [[1, 300, 301, 302, 303, 304, 305]])
        assert batches[0] == 8
        worker = engine._worker
        assert worker is not None
        worker.scheduler.check()
        assert worker.cache.n_used == 7 + len(answer) - 1
        memory = llama().llama_get_memory(worker._context.handle)
        assert worker.batches.filling is not None
        assert llama().llama_memory_seq_pos_max(memory, worker.batches.filling.sequence) == -1
    finally:
        engine.close()


def test_three_streams_are_computed_as_four_and_say_six_tokens_each(
    repacked_model: Path, batches: list[int]
) -> None:
    if tokens_at_once(read_header(repacked_model).tensors) != BLOCK:
        pytest.skip("this build does not multiply weights with four tokens at a time")
    engine = Engine.load(repacked_model, OPTIONS)
    try:
        told = answers(engine, [[1, 300 + i, 310 + i] for i in range(3)])
        assert [len(answer) for answer in told] == [6, 6, 6]
        assert 3 not in batches
        assert 4 in batches
    finally:
        engine.close()


def test_weights_that_stay_as_they_are_gain_nothing_and_are_not_filled(
    tiny_model: Path, batches: list[int]
) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    try:
        answers(engine, [[104, 101, 108]])
        assert batches[0] == 3
    finally:
        engine.close()
