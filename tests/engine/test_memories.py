"""Models whose memory cannot drop or share a part of a sequence answer the same as any other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.context_params import ContextShape
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.support.tiny_memories import MEMORIES

GREEDY = SamplingOptions(temperature=0)
TEXTS = ["Hello", "one two", "one two three", "x" * 60, "a", "one two three four"]


@pytest.fixture(params=list(MEMORIES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    path = MEMORIES[request.param](tmp_path / "model.gguf")
    options = EngineOptions(
        n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off", max_parallel=6
    )
    loaded = Engine.load(path, options)
    yield loaded
    loaded.close()


def ask(engine: Engine, tokens: list[int], n: int = 24) -> GenerationRequest:
    return GenerationRequest(tokens, GREEDY, max_tokens=n, ignore_eos=True)


def run(engine: Engine, request: GenerationRequest) -> tuple[list[int], FinishEvent]:
    *events, last = engine.submit(request)
    assert isinstance(last, FinishEvent)
    return [t for e in events if isinstance(e, TextEvent) for t in e.tokens], last


def test_the_same_request_gets_the_same_answer_again(engine: Engine) -> None:
    request = ask(engine, engine.model.vocab.tokenize("one two three"))
    first, _ = run(engine, request)
    run(engine, ask(engine, engine.model.vocab.tokenize("one two x")))
    assert run(engine, request)[0] == first


def test_a_request_in_a_batch_says_what_it_says_alone(engine: Engine) -> None:
    requests = [ask(engine, engine.model.vocab.tokenize(text)) for text in TEXTS]
    alone = [run(engine, request)[0] for request in requests]
    generations = [engine.submit(request) for request in requests]
    together = [
        [t for e in generation if isinstance(e, TextEvent) for t in e.tokens]
        for generation in generations
    ]
    assert together == alone


def test_the_next_turn_goes_on_as_if_computed_afresh(engine: Engine, tmp_path: Path) -> None:
    first = engine.model.vocab.tokenize("a first question, long enough for a window of sixteen")
    answer, _ = run(engine, ask(engine, first))
    turn = [*first, *answer, *engine.model.vocab.tokenize("and a second one")]
    after, _ = run(engine, ask(engine, turn))
    fresh = Engine.load(engine.model.path, engine.options)
    assert run(fresh, ask(fresh, turn))[0] == after
    fresh.close()


def test_nothing_is_left_in_use(engine: Engine) -> None:
    for text in TEXTS:
        run(engine, ask(engine, engine.model.vocab.tokenize(text), n=4))
    # The last event comes just before the engine's books are closed on a request.
    until = time.monotonic() + 5
    while engine.stats().n_running and time.monotonic() < until:
        time.sleep(0.01)
    stats = engine.stats()
    assert stats.n_cells_used == stats.n_cells_cached


def first_cell_of_a_part(context: Context) -> int:
    """Where a part of a prompt begins that llama.cpp had reason to write over."""

    def compute(sequence: int, n_tokens: int) -> None:
        context.fill([70] * n_tokens, range(n_tokens), [sequence] * n_tokens, [False] * n_tokens)
        context.run()

    compute(0, 10)
    compute(1, 60)
    context.remove(0, 0, -1)
    compute(2, 44)  # from the cells of the first one on
    context.copy(1, 4, 0, 40)
    position: int = llama().llama_memory_seq_pos_min(llama().llama_get_memory(context.handle), 4)
    return position


def test_cells_outside_of_the_window_of_the_one_prompt_that_has_them_are_kept(
    tmp_path: Path,
) -> None:
    path = MEMORIES["sliding window"](tmp_path / "model.gguf")
    engine = Engine.load(path, EngineOptions(n_threads=1, n_ctx=256))
    model, options, shape = engine.model, engine.options, ContextShape(256, 64, 12)
    with closing(Context(model, options, shape)) as context:
        assert first_cell_of_a_part(context) != 0, "llama.cpp gives no cells away any more"
    window = model.n_window
    guarded = Context(model, options, shape, window=window)
    with closing(guarded):
        assert first_cell_of_a_part(guarded) == 0
        assert guarded.has_all(4, 40)
        guarded.restore(5, guarded.state_of(1))
        assert guarded.has_all(5, 60)
        guarded.remove(5, 50, -1)
        assert not guarded.has_all(5, 50)
    engine.close()


def test_a_part_of_a_saved_conversation_is_computed_anew_where_its_cells_are_not_kept(
    engine: Engine, tmp_path: Path
) -> None:
    tokens = engine.model.vocab.tokenize("a long conversation that goes far beyond any window")
    run(engine, ask(engine, tokens))
    assert engine._worker is not None
    if not engine._worker.cache.shares:
        pytest.skip("memory that keeps nothing has no sessions")
    engine.save_session(tokens, tmp_path / "session").result(10)
    other = [*tokens[:30], *tokens[:9]]
    fresh = Engine.load(engine.model.path, engine.options)
    expected, _ = run(fresh, ask(fresh, other))
    fresh.close()
    again = Engine.load(engine.model.path, engine.options)
    again.load_session(tmp_path / "session").result(10)
    assert run(again, ask(again, other))[0] == expected
    again.close()
