"""Guessing ahead changes how many steps an answer takes, and nothing of the answer.

The arithmetic here does not depend on the width of a step (F32, no flash attention), so answers
with and without guesses must be equal token by token.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from tests.support.tiny_memories import MEMORIES

GREEDY = SamplingOptions(temperature=0)
PROMPT = list(b"Say it again: one two three four five. one two three")
F32 = EngineOptions(n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[Engine]:
    loaded = Engine.load(tiny_model, F32)
    yield loaded
    loaded.close()


def run(engine: Engine, request: GenerationRequest) -> tuple[list[TextEvent], FinishEvent]:
    *events, last = engine.submit(request)
    assert isinstance(last, FinishEvent)
    return [event for event in events if isinstance(event, TextEvent)], last


def both(
    engine: Engine, request: GenerationRequest
) -> tuple[list[TextEvent], FinishEvent, FinishEvent]:
    """The events that are the same with and without guesses, and both ends."""
    plain, plain_end = run(engine, replace(request, speculation="off"))
    ahead, ahead_end = run(engine, replace(request, speculation="prompt-lookup"))
    assert plain_end.n_drafted_tokens == plain_end.n_accepted_tokens == 0
    for name in ("reason", "n_generated_tokens", "stop_string", "n_prompt_tokens"):
        assert getattr(ahead_end, name) == getattr(plain_end, name)
    assert [(e.text, e.tokens) for e in ahead] == [(e.text, e.tokens) for e in plain]
    for mine, other in zip(ahead, plain, strict=True):
        for a, b in zip(mine.logprobs, other.logprobs, strict=True):
            assert (a.token, [t.token for t in a.top]) == (b.token, [t.token for t in b.top])
            assert math.isclose(a.logprob, b.logprob, abs_tol=1e-4)
    return ahead, ahead_end, plain_end


def likely(*texts: str, bias: float = 8.0) -> dict[int, float]:
    """Biases that make a model with random weights repeat itself."""
    return {byte: bias for text in texts for byte in text.encode()}


SAMPLINGS = {
    "greedy": SamplingOptions(temperature=0, logit_bias=likely("abcd", bias=12.0)),
    "greedy, repeating": SamplingOptions(temperature=0, logit_bias=likely("one ", bias=30.0)),
    "seeded": SamplingOptions(temperature=0.8, seed=3, logit_bias=likely("ab", bias=12.0)),
    "all samplers": SamplingOptions(
        temperature=0.9,
        top_k=40,
        top_p=0.9,
        min_p=0.02,
        xtc_probability=0.3,
        dry_multiplier=0.2,
        seed=5,
        logit_bias=likely("abc", bias=12.0),
    ),
    "penalties": SamplingOptions(
        temperature=0.5,
        seed=11,
        repeat_penalty=1.1,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logit_bias=likely("abc", bias=12.0),
    ),
    "mirostat": SamplingOptions(
        temperature=0.8, mirostat=2, seed=4, logit_bias=likely("abc", bias=12.0)
    ),
}


@pytest.mark.parametrize("name", sorted(SAMPLINGS))
def test_the_answer_is_the_same_with_and_without_guesses(engine: Engine, name: str) -> None:
    request = GenerationRequest(PROMPT, SAMPLINGS[name], max_tokens=100, ignore_eos=True)
    _, end, _ = both(engine, request)
    assert 0 < end.n_accepted_tokens <= end.n_drafted_tokens


def test_right_guesses_save_steps(engine: Engine) -> None:
    request = GenerationRequest(
        PROMPT, SAMPLINGS["greedy, repeating"], max_tokens=100, ignore_eos=True
    )
    run(engine, replace(request, speculation="off"))
    before = engine.stats()
    _, end = run(engine, replace(request, speculation="prompt-lookup"))
    after = engine.stats()
    n_steps = after.n_steps - before.n_steps
    assert n_steps < 60
    assert n_steps + end.n_accepted_tokens >= end.n_generated_tokens
    assert after.n_drafted_tokens - before.n_drafted_tokens == end.n_drafted_tokens
    assert after.n_accepted_tokens - before.n_accepted_tokens == end.n_accepted_tokens


def test_log_probabilities_come_with_every_token(engine: Engine) -> None:
    request = GenerationRequest(
        PROMPT, SAMPLINGS["greedy"], max_tokens=60, ignore_eos=True, top_logprobs=3
    )
    events, end, _ = both(engine, request)
    assert end.n_accepted_tokens
    chosen = [logprob.token for event in events for logprob in event.logprobs]
    assert chosen == [token for event in events for token in event.tokens]


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 17, 40])
def test_the_limit_holds(engine: Engine, max_tokens: int) -> None:
    request = GenerationRequest(
        PROMPT, SAMPLINGS["greedy, repeating"], max_tokens=max_tokens, ignore_eos=True
    )
    _, end, _ = both(engine, request)
    assert (end.reason, end.n_generated_tokens) == ("length", max_tokens)


def test_the_context_can_be_filled_to_its_end(engine: Engine) -> None:
    request = GenerationRequest(PROMPT, SAMPLINGS["greedy, repeating"], ignore_eos=True)
    _, end, _ = both(engine, request)
    assert end.n_prompt_tokens + end.n_generated_tokens == engine.n_ctx


def test_stop_strings_end_the_answer_at_the_same_place(engine: Engine) -> None:
    sampling = SamplingOptions(temperature=0, logit_bias={ord("a"): 60.0})
    _, end, _ = both(engine, GenerationRequest(PROMPT, sampling, stop=["aaaaaaaaaaaaaaa"]))
    assert end.stop_string == "aaaaaaaaaaaaaaa"
    assert end.n_accepted_tokens


def test_the_end_of_an_answer_may_be_guessed(engine: Engine) -> None:
    # An earlier answer in the prompt ended after the same words.
    turn = [*b"say abcdefgh", 258, *b"say abcdefgh"]
    push = SamplingOptions(temperature=0, logit_bias={258: 100.0})
    events, end, _ = both(engine, GenerationRequest(turn, push))
    assert (events, end.reason, end.n_generated_tokens) == ([], "stop", 0)
    _, held, _ = both(engine, GenerationRequest(turn, push, min_tokens=5))
    assert held.n_generated_tokens == 5


def test_a_constraint_is_followed_at_every_guessed_token(engine: Engine) -> None:
    factory = ConstraintFactory(engine.model.vocab, eos=sorted(engine.model.eog_ids))
    for grammar in (r"(abc|abd)+x", r"[a-c]{60}", r"(one two ){4}three"):
        request = GenerationRequest(
            PROMPT,
            SamplingOptions(temperature=0.7, seed=2),
            max_tokens=80,
            constraint=lambda grammar=grammar: factory.regex(grammar),  # type: ignore[misc]
        )
        events, _, _ = both(engine, request)
        assert events


def test_guesses_in_a_batch_change_nobodys_answer(engine: Engine) -> None:
    requests = [
        GenerationRequest(
            [*PROMPT, *f" {i}".encode()],
            replace(SAMPLINGS[name], seed=None if i % 2 else i),
            max_tokens=25,
            ignore_eos=True,
        )
        for i, name in enumerate(["greedy", "greedy, repeating"] * 2)
    ]
    alone = [run(engine, replace(request, speculation="off")) for request in requests]
    generations = [
        engine.submit(replace(request, speculation="prompt-lookup")) for request in requests
    ]
    for generation, (events, _) in zip(generations, alone, strict=True):
        *together, _ = generation
        assert [e.tokens for e in together if isinstance(e, TextEvent)] == [
            e.tokens for e in events
        ]


def test_no_cell_is_left_behind(engine: Engine) -> None:
    for name in SAMPLINGS:
        request = GenerationRequest(PROMPT, SAMPLINGS[name], max_tokens=30, ignore_eos=True)
        run(engine, replace(request, speculation="prompt-lookup"))
    until = time.monotonic() + 60
    while (stats := engine.stats()).n_running and time.monotonic() < until:
        time.sleep(0.005)
    assert stats.n_cells_used == stats.n_cells_cached


def test_what_was_guessed_wrong_is_not_cached(engine: Engine) -> None:
    request = GenerationRequest(PROMPT, SAMPLINGS["greedy"], max_tokens=40, ignore_eos=True)
    events, end = run(engine, replace(request, speculation="prompt-lookup"))
    assert end.n_accepted_tokens < end.n_drafted_tokens
    tokens = [*PROMPT, *(token for event in events for token in event.tokens)]
    turn = GenerationRequest([*tokens, *b" go on"], GREEDY, max_tokens=20, ignore_eos=True)
    both(engine, turn)


@pytest.mark.parametrize("kind", ["recurrent", "hybrid"])
def test_nothing_is_guessed_where_memory_cannot_drop_tokens(kind: str, tmp_path: Path) -> None:
    engine = Engine.load(MEMORIES[kind](tmp_path / "model.gguf"), F32)
    request = GenerationRequest(PROMPT, GREEDY, max_tokens=60, ignore_eos=True)
    _, end = run(engine, replace(request, speculation="prompt-lookup"))
    engine.close()
    assert end.n_drafted_tokens == 0


def test_sliding_windows_keep_what_guesses_need(tmp_path: Path) -> None:
    engine = Engine.load(MEMORIES["sliding window"](tmp_path / "model.gguf"), F32)
    sampling = SamplingOptions(temperature=0, logit_bias=likely("ab", bias=30.0))
    _, end, _ = both(engine, GenerationRequest(PROMPT, sampling, max_tokens=60, ignore_eos=True))
    engine.close()
    assert end.n_accepted_tokens


@pytest.mark.parametrize(
    ("mode", "seed", "guesses"),
    [("auto", None, True), ("auto", 7, False), ("prompt-lookup", 7, True), ("off", None, False)],
)
def test_a_request_with_a_seed_is_guessed_for_only_when_asked(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, mode: str, seed: int | None, guesses: bool
) -> None:
    from mofa_gguf.engine.speculation.policy import StepCost

    # A wider step costs nothing, so that it always pays.
    monkeypatch.setattr(StepCost, "seconds", lambda self, n_tokens: 1.0)
    sampling = replace(SAMPLINGS["greedy, repeating"], seed=seed)
    request = GenerationRequest(PROMPT, sampling, max_tokens=60, ignore_eos=True)
    _, end = run(engine, replace(request, speculation=mode))  # type: ignore[arg-type]
    assert bool(end.n_drafted_tokens) == guesses


def test_by_itself_nothing_is_guessed_where_each_token_takes_its_own_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.engine.speculation.policy import StepCost

    monkeypatch.setattr(StepCost, "seconds", lambda self, n_tokens: float(n_tokens))
    request = GenerationRequest(
        PROMPT, SAMPLINGS["greedy, repeating"], max_tokens=60, ignore_eos=True
    )
    assert run(engine, request)[1].n_drafted_tokens == 0


def test_prompts_that_together_exceed_a_batch_wait_for_the_next_step(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, replace(F32, n_ctx=100, n_batch=512))
    requests = [GenerationRequest([65 + i] * 90, GREEDY, max_tokens=4) for i in range(2)]
    generations = [engine.submit(request) for request in requests]
    for generation in generations:
        *_, last = generation
        assert isinstance(last, FinishEvent)
    engine.close()
