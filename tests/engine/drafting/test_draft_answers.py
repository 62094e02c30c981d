"""A draft model changes how many steps an answer takes, and nothing of the answer.

The arithmetic here does not depend on the width of a step (F32, no flash attention), so answers
with and without drafts must be equal token by token.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mofa_gguf.engine.cache.prefix_tree import Lease
from mofa_gguf.engine.drafting.drafter import Drafter
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import (
    DecodeFailed,
    EngineError,
    InvalidOption,
    ModelFileError,
    OutOfMemory,
)
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from tests.support.tiny_gguf import TinyLlama, byte_vocab, write_tiny_llama
from tests.support.tiny_memories import MEMORIES

GREEDY = SamplingOptions(temperature=0)
PROMPT = list(b"Tell me of it, whatever it is, from the beginning to its end")
F32 = EngineOptions(n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")


@pytest.fixture(scope="module")
def unlike_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller model with the same vocabulary that says other things."""
    shape = TinyLlama(n_layers=1, n_embd=32, n_heads=2, n_kv_heads=1, seed=5)
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "unlike.gguf", shape)


@pytest.fixture(scope="module")
def itself(tiny_model: Path) -> Iterator[Engine]:
    """A model that is its own draft model: every greedy guess is right."""
    engine = Engine.load(tiny_model, replace(F32, draft_model=str(tiny_model)))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def unlike(tiny_model: Path, unlike_model: Path) -> Iterator[Engine]:
    """A model whose draft model guesses wrong."""
    engine = Engine.load(tiny_model, replace(F32, draft_model=str(unlike_model)))
    yield engine
    engine.close()


def drafter_of(engine: Engine) -> Drafter:
    assert engine._worker is not None
    drafter = engine._worker.drafting.drafter
    assert drafter is not None
    return drafter


def run(engine: Engine, request: GenerationRequest) -> tuple[list[TextEvent], FinishEvent]:
    *events, last = engine.submit(request)
    assert isinstance(last, FinishEvent)
    return [event for event in events if isinstance(event, TextEvent)], last


def both(engine: Engine, request: GenerationRequest) -> FinishEvent:
    """The end of the answer with drafts, which is otherwise that without."""
    plain, plain_end = run(engine, replace(request, speculation="off"))
    ahead, ahead_end = run(engine, replace(request, speculation="draft-model"))
    assert plain_end.n_drafted_tokens == 0
    for name in ("reason", "n_generated_tokens", "stop_string", "n_prompt_tokens"):
        assert getattr(ahead_end, name) == getattr(plain_end, name)
    assert [(e.text, e.tokens) for e in ahead] == [(e.text, e.tokens) for e in plain]
    check_books(engine)
    return ahead_end


def check_books(engine: Engine) -> None:
    """The books of both caches agree, and nothing is held when nothing runs."""
    worker, drafter = engine._worker, drafter_of(engine)
    assert worker is not None

    def check() -> int:
        worker.scheduler.check()
        drafter.check()
        assert worker.idle
        assert worker.cache.n_used == worker.cache.n_evictable
        assert drafter.cache.n_used == drafter.cache.n_evictable
        return 0

    engine._call(check).result(60)  # on the engine's own thread, after its step


SAMPLINGS = {
    "greedy": GREEDY,
    "seeded": SamplingOptions(temperature=0.8, seed=3),
    "biased": SamplingOptions(temperature=0, logit_bias=dict.fromkeys(b"abcd", 12.0)),
    "many samplers": SamplingOptions(
        temperature=0.9, top_k=40, top_p=0.9, min_p=0.02, repeat_penalty=1.1, seed=5
    ),
}


@pytest.mark.parametrize("name", sorted(SAMPLINGS))
@pytest.mark.parametrize("pair", ["itself", "unlike"])
def test_the_answer_is_the_same_with_and_without_drafts(
    request: pytest.FixtureRequest, pair: str, name: str
) -> None:
    engine: Engine = request.getfixturevalue(pair)
    asked = GenerationRequest(PROMPT, SAMPLINGS[name], max_tokens=100, ignore_eos=True)
    end = both(engine, asked)
    assert end.n_drafted_tokens


def test_a_model_that_drafts_for_itself_is_right(itself: Engine) -> None:
    request = GenerationRequest(PROMPT, GREEDY, max_tokens=100, ignore_eos=True)
    run(itself, replace(request, speculation="off"))
    before = itself.stats()
    end = both(itself, request)
    assert end.n_accepted_tokens >= 0.95 * end.n_drafted_tokens
    assert end.n_accepted_tokens >= 80
    assert itself.stats().n_drafted_tokens - before.n_drafted_tokens == end.n_drafted_tokens


def test_stop_strings_end_the_answer_at_the_same_place(itself: Engine) -> None:
    request = GenerationRequest(PROMPT, GREEDY, max_tokens=60, ignore_eos=True)
    events, _ = run(itself, request)
    text = "".join(event.text for event in events)
    end = both(itself, replace(request, stop=[text[20:24]]))
    assert end.stop_string == text[20:24]
    assert end.n_accepted_tokens


def test_the_end_of_an_answer_may_be_drafted(itself: Engine) -> None:
    push = SamplingOptions(temperature=0, logit_bias={258: 100.0})
    end = both(itself, GenerationRequest(PROMPT, push, min_tokens=5))
    assert (end.reason, end.n_generated_tokens) == ("stop", 5)


def test_a_constraint_is_followed_at_every_drafted_token(itself: Engine) -> None:
    factory = ConstraintFactory(itself.model.vocab, eos=sorted(itself.model.eog_ids))
    for grammar in (r"(abc|abd)+x", r"[a-z]{60}"):
        both(
            itself,
            GenerationRequest(
                PROMPT,
                SamplingOptions(temperature=0.7, seed=2),
                max_tokens=80,
                constraint=lambda grammar=grammar: factory.regex(grammar),  # type: ignore[misc]
            ),
        )


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 17])
def test_the_limit_holds(itself: Engine, max_tokens: int) -> None:
    end = both(itself, GenerationRequest(PROMPT, GREEDY, max_tokens=max_tokens, ignore_eos=True))
    assert (end.reason, end.n_generated_tokens) == ("length", max_tokens)


def test_the_context_can_be_filled_to_its_end(itself: Engine) -> None:
    end = both(itself, GenerationRequest(PROMPT, GREEDY, ignore_eos=True))
    assert end.n_prompt_tokens + end.n_generated_tokens == itself.n_ctx


def test_the_next_turn_finds_the_drafts_cells_too(itself: Engine) -> None:
    request = GenerationRequest(
        list(b"A turn of its own"),
        GREEDY,
        max_tokens=40,
        ignore_eos=True,
        speculation="draft-model",
    )
    events, _ = run(itself, request)
    check_books(itself)
    tokens = [*request.tokens, *(token for event in events for token in event.tokens)]
    assert drafter_of(itself).cache.match(tokens) >= len(tokens) - 2
    both(itself, GenerationRequest([*tokens, *b" go on"], GREEDY, max_tokens=30, ignore_eos=True))


def test_a_restored_session_is_drafted_for(itself: Engine, tmp_path: Path) -> None:
    prompt = list(b"A session that is kept, of more than a few words")
    request = GenerationRequest(prompt, GREEDY, max_tokens=50, ignore_eos=True)
    events, _ = run(itself, request)
    itself.save_session(prompt, tmp_path / "session").result(60)
    assert itself.load_session(tmp_path / "session").result(60)
    end = both(itself, request)
    assert end.n_accepted_tokens
    assert events


def test_many_requests_at_once_say_what_each_says_alone(itself: Engine) -> None:
    names = sorted(SAMPLINGS)
    requests = [
        GenerationRequest(
            [*b"Common words in front of ", *str(i).encode()],
            SAMPLINGS[names[i % len(names)]],
            max_tokens=15 + i,
            ignore_eos=True,
        )
        for i in range(8)
    ]
    alone = [run(itself, replace(each, speculation="off"))[0] for each in requests]
    running = [itself.submit(replace(each, speculation="draft-model")) for each in requests]
    for generation, events in zip(running, alone, strict=True):
        *together, _ = generation
        assert [e.tokens for e in together if isinstance(e, TextEvent)] == [
            e.tokens for e in events
        ]
    check_books(itself)


def test_preempted_and_cancelled_requests_leave_no_cell_behind(
    tiny_model: Path, unlike_model: Path
) -> None:
    for draft in (tiny_model, unlike_model):
        options = replace(F32, n_ctx=200, draft_model=str(draft), max_queue=64)
        engine = Engine.load(tiny_model, options)
        chance = random.Random(1)
        requests = [
            GenerationRequest(
                [*b"The same beginning", *(chance.randrange(65, 91) for _ in range(i * 9))],
                GREEDY,
                max_tokens=40,
                ignore_eos=True,
                speculation=chance.choice(["auto", "draft-model"]),
            )
            for i in range(9)
        ]
        generations = [engine.submit(request) for request in requests]
        for n, generation in enumerate(generations):
            if n % 3 == 0:
                next(iter(generation))
                generation.cancel()
                continue
            *_, end = generation
            assert isinstance(end, FinishEvent)
            assert end.n_generated_tokens == 40
        check_books(engine)
        engine.close()


def test_by_itself_it_is_used_where_it_pays_and_given_up_where_not(
    tiny_model: Path, unlike_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.engine.speculation.policy import StepCost

    drafters: list[Drafter] = []

    def seconds(cost: StepCost, n_tokens: int) -> float:
        """A wider step costs nothing, a step of the draft model a quarter of one."""
        return 0.25 if any(cost is each.cost for each in drafters) else 1.0

    monkeypatch.setattr(StepCost, "seconds", seconds)
    monkeypatch.setattr("mofa_gguf.engine.speculation.draft_policy.TRIAL_START_S", 1e9)
    prompt = random.Random(2).choices(range(256), k=60)
    request = GenerationRequest(prompt, GREEDY, max_tokens=60, ignore_eos=True)
    found = []
    for draft in (tiny_model, unlike_model):
        engine = Engine.load(tiny_model, replace(F32, draft_model=str(draft)))
        drafter = drafter_of(engine)
        drafters.append(drafter)
        plain, _ = run(engine, replace(request, speculation="off"))
        tried, end = run(engine, request)
        assert end.n_drafted_tokens > 0
        assert drafter.acceptance.trusted
        drafter.account.balance_s = 0.0  # nothing more is tried
        again, end = run(engine, request)
        assert [e.tokens for e in tried] == [e.tokens for e in again] == [e.tokens for e in plain]
        found.append((drafter.acceptance.mean, end.n_drafted_tokens))
        engine.close()
    (right, n_right), (wrong, n_wrong) = found
    assert right > 0.9
    assert wrong < 0.3
    assert n_right >= 45
    assert n_wrong == 0


@pytest.mark.parametrize("when", [1, 3, 10])
def test_a_draft_model_that_fails_is_given_up_and_answers_go_on(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    when: int,
) -> None:
    engine = Engine.load(tiny_model, replace(F32, draft_model=str(tiny_model)))
    drafter = drafter_of(engine)
    request = GenerationRequest(PROMPT, GREEDY, max_tokens=80, ignore_eos=True)
    plain, _ = run(engine, replace(request, speculation="off"))
    n_calls = 0
    compute: Callable[[Context], None] = Context.run

    def failing(context: Context) -> None:
        nonlocal n_calls
        if context is drafter._decoder._context:  # type: ignore[attr-defined]
            n_calls += 1
            if n_calls == when:
                raise DecodeFailed("the draft model has had enough", status=-3)
        compute(context)

    monkeypatch.setattr(Context, "run", failing)
    with caplog.at_level(logging.WARNING, logger="mofa_gguf.engine.drafting.drafter"):
        for _ in range(2):
            ahead, end = run(engine, replace(request, speculation="draft-model"))
            assert [e.tokens for e in ahead] == [e.tokens for e in plain]
    assert n_calls == when
    assert end.n_drafted_tokens == 0
    assert [r.message for r in caplog.records] == [
        "the draft model failed and is used no more: the draft model has had enough"
    ]
    assert drafter._decoder._context.handle is None  # type: ignore[attr-defined]
    engine.close()


def test_after_a_failure_that_nobody_foresaw_drafts_begin_anew(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_model, replace(F32, draft_model=str(tiny_model)))
    request = GenerationRequest(PROMPT, GREEDY, max_tokens=40, ignore_eos=True)
    drafter, n_calls = drafter_of(engine), 0
    extend = drafter.cache.extend

    def failing(lease: Lease, tokens: Sequence[int]) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 5:
            raise ZeroDivisionError("a bug")
        extend(lease, tokens)

    monkeypatch.setattr(drafter.cache, "extend", failing)
    with pytest.raises(EngineError, match="a bug"):
        run(engine, replace(request, speculation="draft-model"))
    assert both(engine, request).n_accepted_tokens
    engine.close()


def test_closing_frees_the_draft_model_also_while_it_is_used(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, replace(F32, draft_model=str(tiny_model)))
    drafter = drafter_of(engine)
    request = GenerationRequest(PROMPT, GREEDY, ignore_eos=True, speculation="draft-model")
    generation = engine.submit(request)
    next(iter(generation))
    engine.close()
    decoder = drafter._decoder
    assert decoder._context.handle is None  # type: ignore[attr-defined]
    assert decoder._model.handle is None  # type: ignore[attr-defined]


def test_another_vocabulary_is_refused_with_both_names(tiny_model: Path, tmp_path: Path) -> None:
    vocab = byte_vocab()
    swapped = replace(vocab, tokens=[vocab.tokens[1], vocab.tokens[0], *vocab.tokens[2:]])
    others = {
        "swapped": swapped,
        "another end": replace(vocab, eos=256),
        "larger": byte_vocab(tuple(f"<mark {i}>" for i in range(200))),
    }
    for name, other in others.items():
        path = write_tiny_llama(tmp_path / f"{name}.gguf", TinyLlama(vocab=other))
        with pytest.raises(InvalidOption, match=rf"{path.name} .*tiny\.gguf") as caught:
            Engine.load(tiny_model, replace(F32, draft_model=str(path)))
        assert caught.value.field == "draft_model"


def test_a_vocabulary_that_is_only_padded_is_taken(tiny_model: Path, tmp_path: Path) -> None:
    padded = write_tiny_llama(
        tmp_path / "padded.gguf", TinyLlama(vocab=byte_vocab(("<pad 1>", "<pad 2>")))
    )
    for target, draft in ((tiny_model, padded), (padded, tiny_model)):
        engine = Engine.load(target, replace(F32, draft_model=str(draft)))
        vocab = engine.model.vocab
        last = SamplingOptions(temperature=0, logit_bias={vocab.n_tokens - 1: 3.0})
        assert both(engine, GenerationRequest(PROMPT, last, max_tokens=40)).n_generated_tokens
        engine.close()


@pytest.mark.parametrize("kind", ["recurrent", "hybrid"])
def test_models_that_cannot_drop_tokens_are_refused(
    tiny_model: Path, kind: str, tmp_path: Path
) -> None:
    other = MEMORIES[kind](tmp_path / "other.gguf")
    for target, draft in ((other, tiny_model), (tiny_model, other)):
        with pytest.raises(InvalidOption, match=r"draft_model cannot be used with other\.gguf"):
            Engine.load(target, replace(F32, draft_model=str(draft)))


def test_sliding_windows_can_draft_and_be_drafted_for(tmp_path: Path) -> None:
    model = MEMORIES["sliding window"](tmp_path / "model.gguf")
    engine = Engine.load(model, replace(F32, draft_model=str(model)))
    end = both(engine, GenerationRequest(PROMPT, GREEDY, max_tokens=60, ignore_eos=True))
    assert end.n_accepted_tokens >= 0.95 * end.n_drafted_tokens > 0
    engine.close()


def test_a_missing_draft_model_is_told_before_anything_is_loaded(
    tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="absent"):
        Engine.load(tiny_model, replace(F32, draft_model=str(tmp_path / "absent.gguf")))


def test_a_draft_model_that_does_not_fit_is_refused_by_its_name(
    tiny_model: Path, unlike_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.engine.machine.memory import HostMemory, Room
    from mofa_gguf.engine.planning import fit

    plan = fit.plan_load

    def tight(header, options, **more):  # type: ignore[no-untyped-def]
        if header.path == unlike_model:
            more["memory"] = HostMemory(Room(2**20, "a small machine"), None, 2**20)
        return plan(header, options, **more)

    monkeypatch.setattr("mofa_gguf.engine.planning.whole.plan_load", tight)
    with pytest.raises(OutOfMemory, match="unlike"):
        Engine.load(tiny_model, replace(F32, draft_model=str(unlike_model)))


def test_drafts_asked_for_without_a_draft_model_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidOption, match="speculation"):
        engine.submit(GenerationRequest(PROMPT, GREEDY, speculation="draft-model"))
