"""A request that is alone is computed by a shorter road, and nobody can tell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import DeadlineExceeded, DecodeFailed
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.running.solo import Solo

PROMPT = list(b"the rain in Spain ")
PLAIN = GenerationRequest(PROMPT, SamplingOptions(temperature=0), max_tokens=30, ignore_eos=True)
KINDS = {
    "greedy": PLAIN,
    "drawn with a seed": GenerationRequest(PROMPT, SamplingOptions(seed=7), max_tokens=30),
    "penalties": GenerationRequest(
        PROMPT, SamplingOptions(seed=7, repeat_penalty=1.3, presence_penalty=0.5), max_tokens=30
    ),
    "log-probabilities": GenerationRequest(
        PROMPT, SamplingOptions(temperature=0), max_tokens=30, top_logprobs=3, ignore_eos=True
    ),
    "a least length": GenerationRequest(
        PROMPT, SamplingOptions(seed=3), max_tokens=30, min_tokens=20
    ),
    "a stop string": GenerationRequest(
        PROMPT, SamplingOptions(temperature=0), max_tokens=30, ignore_eos=True, stop=("e", "a")
    ),
    "one token": GenerationRequest(PROMPT, SamplingOptions(temperature=0), max_tokens=1),
    "a prompt of one token": GenerationRequest(
        [65], SamplingOptions(seed=1), max_tokens=9, ignore_eos=True
    ),
}
OPTIONS = EngineOptions(n_ctx=256, n_threads=1, speculation="off")


class Steps:
    """Counts the steps that went by the shorter road, and may do something in one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        self.events: dict[int, Callable[[], object]] = {}
        real = Context.put

        def put(context: Context, token: int, position: int) -> None:
            self.n += 1
            self.events.get(self.n, lambda: None)()
            real(context, token, position)

        monkeypatch.setattr(Context, "put", put)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def answer(engine: Engine, request: GenerationRequest) -> tuple[Any, ...]:
    *said, end = engine.submit(request)
    assert isinstance(end, FinishEvent)
    events = [event for event in said if isinstance(event, TextEvent)]
    tokens = [token for event in events for token in event.tokens]
    logprobs = [each for event in events for each in event.logprobs]
    text = "".join(event.text for event in events)
    return text, tokens, logprobs, end.reason, end.n_generated_tokens, end.stop_string


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_the_one_of_the_longer_road(
    kind: str, tiny_model: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for n_alone in (29, 0):
        engine = Engine.load(tiny_model, OPTIONS)
        try:
            answers.append(answer(engine, KINDS[kind]))
        finally:
            engine.close()
        assert steps.n == min(n_alone, answers[0][4] - 1)
        steps.n = 0
        monkeypatch.setattr(Solo, "can_go_on", lambda *_: False)
    assert answers[0] == answers[1]


def test_the_books_of_the_cache_agree_after_it(tiny_model: Path, steps: Steps) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    try:
        _, tokens, *_ = answer(engine, PLAIN)
        assert steps.n
        again = list(engine.submit(GenerationRequest([*PROMPT, *tokens, 65], max_tokens=1)))[-1]
        assert isinstance(again, FinishEvent)
        assert again.n_cached_tokens == len(PROMPT) + len(tokens) - 1
    finally:
        engine.close()
    assert engine._worker is not None
    engine._worker.scheduler.check()


def test_who_comes_meanwhile_is_in_the_next_step(tiny_model: Path, steps: Steps) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    came: list[object] = []
    n_told: list[int] = []
    steps.events[5] = lambda: came.append(engine.submit(PLAIN))
    steps.events[6] = lambda: n_told.append(engine.stats().n_generated_tokens)
    try:
        first = answer(engine, PLAIN)
        (second,) = came
        assert isinstance(list(second)[-1], FinishEvent)  # type: ignore[call-overload]
        assert n_told[0] > 2 * 25, "until the first was done they went together"
        assert first == answer(engine, PLAIN)
    finally:
        engine.close()


def test_cancelling_ends_it_within_a_step(tiny_model: Path, steps: Steps) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    try:
        generation = engine.submit(PLAIN)
        steps.events[4] = generation.cancel
        *_, end = generation
        assert isinstance(end, FinishEvent)
        assert end.reason == "cancelled"
        assert steps.n == 4
    finally:
        engine.close()


def test_a_deadline_ends_it(tiny_model: Path, steps: Steps) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    waited = threading.Event()
    steps.events[3] = lambda: waited.wait(0.3)
    request = GenerationRequest(PROMPT, max_tokens=200, ignore_eos=True, deadline_s=0.25)
    try:
        with pytest.raises(DeadlineExceeded):
            list(engine.submit(request))
        assert steps.n == 3
    finally:
        engine.close()


def test_closing_the_engine_ends_it(tiny_model: Path, steps: Steps) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    closing = threading.Thread(target=engine.close)
    steps.events[6] = closing.start
    with pytest.raises(Exception, match="closed"):
        list(engine.submit(GenerationRequest(PROMPT, max_tokens=10**6, ignore_eos=True)))
    closing.join()
    assert engine.closed


def test_a_failing_decode_fails_the_request_and_the_next_one_is_answered(
    tiny_model: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    real = Context.run

    def fail() -> None:
        def run(context: Context) -> None:
            monkeypatch.setattr(Context, "run", real)
            raise DecodeFailed("no luck", status=-3)

        monkeypatch.setattr(Context, "run", run)

    steps.events[3] = fail
    try:
        with pytest.raises(DecodeFailed, match="no luck"):
            list(engine.submit(PLAIN))
        assert answer(engine, PLAIN)[4] == PLAIN.max_tokens
    finally:
        engine.close()


def test_a_full_cache_gives_idle_cells_up_for_it(tiny_model: Path, steps: Steps) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    try:
        for letter in b"abc":
            answer(engine, GenerationRequest([letter] * 60, max_tokens=2, ignore_eos=True))
        long = GenerationRequest(PROMPT, SamplingOptions(temperature=0), max_tokens=200)
        *_, end = engine.submit(GenerationRequest(**{**vars(long), "ignore_eos": True}))
        assert isinstance(end, FinishEvent)
        assert end.n_generated_tokens == 200
    finally:
        engine.close()


def test_guesses_are_made_all_the_same(tiny_model: Path, steps: Steps) -> None:
    repeating = GenerationRequest(
        PROMPT, SamplingOptions(temperature=0, logit_bias={65: 100.0}), max_tokens=60,
        ignore_eos=True, speculation="prompt-lookup",
    )  # fmt: skip
    engine = Engine.load(tiny_model, OPTIONS)
    try:
        *_, end = engine.submit(repeating)
        assert isinstance(end, FinishEvent)
        assert end.n_accepted_tokens > 30
        assert steps.n > 0, "before anything could be guessed"
        assert end.n_generated_tokens == 60
    finally:
        engine.close()
