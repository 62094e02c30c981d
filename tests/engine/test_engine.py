"""The engine from the outside: requests in, events out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import (
    DeadlineExceeded,
    DeviceUnavailable,
    EngineClosed,
    InvalidOption,
    ModelFileError,
    PromptTooLong,
    QueueFull,
)
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

GREEDY = SamplingOptions(temperature=0)


def run(engine: Engine, request: GenerationRequest) -> tuple[str, list[int], FinishEvent]:
    """Text, tokens and last event of an answer."""
    *events, last = engine.submit(request)
    assert isinstance(last, FinishEvent)
    texts = [e for e in events if isinstance(e, TextEvent)]
    return "".join(e.text for e in texts), [t for e in texts for t in e.tokens], last


def prompt(engine: Engine, text: str = "Hello, world") -> list[int]:
    return engine.model.vocab.tokenize(text)


def test_greedy_answers_are_the_same_every_time(engine: Engine) -> None:
    request = GenerationRequest(prompt(engine), GREEDY, max_tokens=24)
    first = run(engine, request)
    assert first[2].n_generated_tokens == 24
    assert run(engine, request)[:2] == first[:2]


def test_a_cached_prefix_gives_the_same_answer_as_none(engine: Engine) -> None:
    tokens = prompt(engine, "one two three four")
    fresh = run(engine, GenerationRequest(tokens, GREEDY, max_tokens=16))
    other = prompt(engine, "one two x")
    assert run(engine, GenerationRequest(other, GREEDY))[2].n_cached_tokens == len("one two ")
    again = run(engine, GenerationRequest(tokens, GREEDY, max_tokens=16))
    assert again[2].n_cached_tokens == len(tokens) - 1
    assert again[:2] == fresh[:2]


def test_a_request_in_a_batch_of_eight_says_what_it_says_alone(engine: Engine) -> None:
    texts = ["Hello", "one two", "one two three", "x" * 90, "a", "one", "zzz", "Hello again"]
    requests = [GenerationRequest(prompt(engine, t), GREEDY, max_tokens=24) for t in texts]
    alone = [run(engine, request)[:2] for request in requests]
    generations = [engine.submit(request) for request in requests]
    for generation, expected in zip(generations, alone, strict=True):
        tokens = [t for e in generation if isinstance(e, TextEvent) for t in e.tokens]
        assert tokens == expected[1]


def test_requests_that_arrive_together_share_one_prefill(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1))
    system = prompt(engine, "You are one of several agents with the same instructions. " * 2)
    requests = [
        GenerationRequest([*system, *prompt(engine, f"Question {i}")], GREEDY, max_tokens=4)
        for i in range(6)
    ]
    for generation in [engine.submit(request) for request in requests]:
        list(generation)
    stats = engine.stats()
    n_shared = len(system) + len("Question ")
    assert stats.n_prompt_tokens_computed == n_shared + 6
    assert stats.n_prompt_tokens_cached == 5 * n_shared
    engine.close()


def test_requests_that_together_exceed_the_context_all_finish(engine: Engine) -> None:
    texts = [f"{i} is the beginning" for i in range(6)]
    requests = [
        GenerationRequest(prompt(engine, t), GREEDY, max_tokens=100, ignore_eos=True) for t in texts
    ]
    alone = [run(engine, request)[1] for request in requests]
    generations = [engine.submit(request) for request in requests]
    for generation, expected in zip(generations, alone, strict=True):
        assert [t for e in generation if isinstance(e, TextEvent) for t in e.tokens] == expected


def test_the_next_turn_computes_only_its_new_tokens(engine: Engine) -> None:
    first = prompt(engine, "a question")
    _, answer, _ = run(engine, GenerationRequest(first, GREEDY, max_tokens=8))
    turn = [*first, *answer, *prompt(engine, "and another")]
    _, _, last = run(engine, GenerationRequest(turn, GREEDY, max_tokens=4))
    # The last token of an answer is chosen but never computed.
    assert last.n_cached_tokens == len(first) + len(answer) - 1


def test_the_same_seed_gives_the_same_text_and_another_seed_another(engine: Engine) -> None:
    def sampled(seed: int) -> list[int]:
        options = SamplingOptions(temperature=1.5, seed=seed)
        request = GenerationRequest(prompt(engine), options, max_tokens=20, ignore_eos=True)
        return run(engine, request)[1]

    assert sampled(7) == sampled(7)
    assert sampled(7) != sampled(8)


def test_a_long_prompt_is_computed_in_chunks_with_the_same_result(tiny_model: Path) -> None:
    answers = []
    for n_batch in (8, 128):
        options = EngineOptions(
            n_threads=1,
            n_batch=n_batch,
            cache_type_k="f32",
            cache_type_v="f32",
            flash_attn="off",
            max_parallel=4,
        )
        engine = Engine.load(tiny_model, options)
        answers.append(
            run(engine, GenerationRequest(prompt(engine, "x y z " * 15), GREEDY, max_tokens=8))[0]
        )
        engine.close()
    assert answers[0] == answers[1]


def test_generation_ends_at_max_tokens_and_at_the_end_of_the_context(engine: Engine) -> None:
    tokens = prompt(engine)
    request = GenerationRequest(tokens, GREEDY, max_tokens=5, ignore_eos=True)
    assert run(engine, request)[2].reason == "length"
    _, generated, last = run(engine, GenerationRequest(tokens, GREEDY, ignore_eos=True))
    assert last.reason == "length"
    assert len(tokens) + len(generated) == engine.n_ctx


def test_every_end_of_generation_id_ends_an_answer(tmp_path: Path) -> None:
    listed = TinyLlama(metadata={"tokenizer.ggml.eos_token_ids": [65, 258]})
    engine = Engine.load(write_tiny_llama(tmp_path / "m.gguf", listed))
    assert engine.model.eog_ids == {65, 256, 258}
    push = SamplingOptions(temperature=0, logit_bias={65: 100.0})
    text, tokens, last = run(engine, GenerationRequest(prompt(engine), push))
    assert (text, tokens, last.reason, last.n_generated_tokens) == ("", [], "stop", 0)
    engine.close()


def test_min_tokens_holds_the_end_back(engine: Engine) -> None:
    push = SamplingOptions(temperature=0, logit_bias={258: 100.0})
    request = GenerationRequest(prompt(engine), push, min_tokens=3)
    assert run(engine, request)[2].n_generated_tokens == 3


def test_a_stop_string_ends_the_answer_before_it(engine: Engine) -> None:
    tokens = prompt(engine)
    push = SamplingOptions(temperature=0, logit_bias={ord("a"): 60.0})
    request = GenerationRequest(tokens, push, stop=["aaa"], max_tokens=20)
    text, _, last = run(engine, request)
    assert (text, last.reason, last.stop_string) == ("", "stop", "aaa")


def test_logprobs_come_with_every_token_and_add_up(engine: Engine) -> None:
    import math

    request = GenerationRequest(prompt(engine), GREEDY, max_tokens=6, top_logprobs=259)
    events = [e for e in engine.submit(request) if isinstance(e, TextEvent)]
    chosen = [logprob for e in events for logprob in e.logprobs]
    assert [c.token for c in chosen] == [t for e in events for t in e.tokens]
    for each in chosen:
        assert math.isclose(sum(math.exp(t.logprob) for t in each.top), 1.0, rel_tol=1e-4)
        assert each.top[0].logprob == max(t.logprob for t in each.top)
        assert each.top[0].token == each.token


def test_penalties_change_what_is_said_again(engine: Engine) -> None:
    def greedy(**options: float) -> list[int]:
        bias = {ord("a"): 6.0, ord("b"): 5.0}
        sampling = SamplingOptions(temperature=0, logit_bias=bias, **options)  # type: ignore[arg-type]
        request = GenerationRequest(prompt(engine), sampling, max_tokens=12, ignore_eos=True)
        return run(engine, request)[1]

    plain = greedy()
    penalised = greedy(frequency_penalty=2.0)
    assert plain.count(ord("a")) > penalised.count(ord("a"))


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(engine: Engine) -> None:
    with pytest.raises(PromptTooLong) as caught:
        engine.submit(GenerationRequest([65] * 300))
    assert (caught.value.n_tokens, caught.value.n_ctx) == (300, 256)


def test_the_context_is_as_long_as_was_asked_for(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1, n_ctx=64))
    assert engine.n_ctx == 64
    request = GenerationRequest(prompt(engine), GREEDY, ignore_eos=True)
    _, tokens, last = run(engine, request)
    assert len(tokens) + last.n_prompt_tokens == 64
    with pytest.raises(PromptTooLong) as caught:
        engine.submit(GenerationRequest([65] * 64))
    assert caught.value.n_ctx == 64
    engine.close()


def test_a_token_outside_the_vocabulary_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidOption, match="0 to 258"):
        engine.submit(GenerationRequest([1, 259]))


def test_an_empty_prompt_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidOption, match="empty"):
        engine.submit(GenerationRequest([]))


async def test_cancelling_frees_the_engine_at_the_next_step(engine: Engine) -> None:
    endless = GenerationRequest(prompt(engine), GREEDY, ignore_eos=True)
    generation = engine.submit(endless)
    async for _ in generation:
        break
    generation.cancel()
    started = time.monotonic()
    async for event in engine.submit(GenerationRequest(prompt(engine), GREEDY, max_tokens=2)):
        last = event
    assert isinstance(last, FinishEvent)
    assert time.monotonic() - started < 5


async def test_the_event_loop_stays_free_while_the_engine_works(engine: Engine) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    async for _ in engine.submit(GenerationRequest(prompt(engine), GREEDY, ignore_eos=True)):
        pass
    ticker.cancel()
    assert ticks > 10


def test_threads_share_one_engine(engine: Engine) -> None:
    request = GenerationRequest(prompt(engine), GREEDY, max_tokens=8)
    expected = run(engine, request)[0]
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(run(engine, request)[0])) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [expected] * 6


def test_a_full_queue_answers_at_once(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1, max_parallel=2, max_queue=2))
    endless = GenerationRequest(prompt(engine), GREEDY, ignore_eos=True)

    def flood() -> None:
        for _ in range(50):
            engine.submit(endless)

    with pytest.raises(QueueFull) as caught:
        flood()
    assert caught.value.limit == 2
    engine.close()


def test_a_refused_request_leaves_nothing_behind(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.engine.requests.sampling import Sampler

    engine = Engine.load(tiny_model, EngineOptions(n_threads=1, max_parallel=1, max_queue=1))
    made: list[Sampler] = []
    make = Sampler.__init__

    def counted(self: Sampler, *args: object, **options: object) -> None:
        make(self, *args, **options)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Sampler, "__init__", counted)
    generations = []
    for _ in range(50):
        with contextlib.suppress(QueueFull):
            generations.append(
                engine.submit(GenerationRequest(prompt(engine), GREEDY, max_tokens=100))
            )
    assert len(generations) < len(made) == 50
    for generation in generations:
        list(generation)
    engine.close()
    assert [sampler for sampler in made if sampler._chain] == []


def test_a_deadline_ends_a_request_and_not_the_engine(engine: Engine) -> None:
    late = GenerationRequest(prompt(engine), GREEDY, deadline_s=0.0)
    with pytest.raises(DeadlineExceeded):
        list(engine.submit(late))
    assert run(engine, GenerationRequest(prompt(engine), GREEDY, max_tokens=2))[0]


def test_close_ends_running_and_waiting_requests(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1))
    endless = GenerationRequest(prompt(engine), GREEDY, ignore_eos=True)
    streams = [engine.submit(endless) for _ in range(20)]
    engine.close()
    outcomes = []
    for stream in streams:
        try:
            *_, last = stream
        except EngineClosed as error:
            outcomes.append(error)
        else:
            assert isinstance(last, FinishEvent)
    assert outcomes
    engine.close()
    with pytest.raises(EngineClosed):
        engine.submit(endless)


def test_a_failed_decode_fails_only_its_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.engine.errors import DecodeFailed
    from mofa_gguf.engine.models.context import Context

    def fail(self: Context) -> None:
        raise DecodeFailed("injected", status=-3)

    request = GenerationRequest(prompt(engine), GREEDY, max_tokens=4)
    expected = run(engine, request)[0]
    with monkeypatch.context() as patch:
        patch.setattr(Context, "run", fail)
        with pytest.raises(DecodeFailed, match="injected"):
            list(engine.submit(GenerationRequest(prompt(engine, "other"), GREEDY)))
    assert run(engine, request)[0] == expected


def test_an_unexpected_failure_fails_only_its_request(engine: Engine) -> None:
    from mofa_gguf.engine.errors import EngineError

    class Broken:
        def mask(self, logits: object) -> None:
            raise RuntimeError("a bug in a constraint")

    request = GenerationRequest(prompt(engine), GREEDY, constraint=Broken)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="a bug in a constraint"):
        list(engine.submit(request))
    assert run(engine, GenerationRequest(prompt(engine), GREEDY, max_tokens=2))[0]


def test_embeddings_have_length_one_and_do_not_depend_on_the_batch(engine: Engine) -> None:
    import numpy as np

    texts = [prompt(engine, t) for t in ("one", "two and three", "x" * 100, "four")]
    together = engine.embed(texts).result()
    alone = [engine.embed([t]).result()[0] for t in texts]
    assert all(abs(np.linalg.norm(v) - 1) < 1e-5 for v in together)
    # Flash attention adds up in another order in another batch: equal but for rounding.
    cosines = np.sum(np.asarray(together) * np.asarray(alone), axis=1)
    assert all(cosines > 0.99999)


def test_a_text_too_long_to_embed_is_refused(engine: Engine) -> None:
    with pytest.raises(PromptTooLong) as caught:
        engine.embed([[65] * 400])
    assert caught.value.n_ctx == 256


@pytest.mark.parametrize("content", [b"", b"plain text, no model at all, " * 10])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        Engine.load(path)


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    from mofa_gguf.engine.errors import UnsupportedModel

    path = write_tiny_llama(tmp_path / "m.gguf")
    content = path.read_bytes().replace(
        b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00gamma"
    )
    path.write_bytes(content)
    with pytest.raises(UnsupportedModel, match="gamma"):
        Engine.load(path)


def test_a_required_gpu_that_is_not_there_is_an_error(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mofa_gguf.engine.planning.fit.gpus", list)
    with pytest.raises(DeviceUnavailable, match="require_gpu"):
        Engine.load(tiny_model, EngineOptions(require_gpu=True))


def test_llama_cpp_writes_nothing_to_the_terminal(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Engine.load(tiny_model, EngineOptions(n_threads=1)).close()
    assert capfd.readouterr() == ("", "")
