"""MoFA's contract over two replicas on a real Ray."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest
from conftest import OPTIONS, RayHere
from mofa_gguf_ray import RayProvider, ReplicaReport
from mofa_gguf_ray.resources import Planned, plan_here
from scenes import HELLO, LONG, n_running, sums, until

from mofa_gguf import GGUFConfig, GGUFProvider, LLMClient
from mofa_gguf.cli.client import Choice
from mofa_gguf.cli.on_ray import open_on_ray
from mofa_gguf.contract import (
    ChatCompletionRequest,
    ConfigError,
    ContextLengthExceeded,
    EmbeddingRequest,
    ModelNotFound,
    Other,
    ProviderNotSupported,
    RateLimited,
)
from mofa_gguf.contract.streaming import stream_violations

pytestmark = pytest.mark.ray
RERANKER = Path(__file__).parents[3] / "tests" / "data" / "rerankers" / "roberta"
QUESTIONS = ["Hello!", "What is MoFA?", "What is 17 + 25?", "Who are you?"]


async def test_answers_are_those_of_the_engine_in_this_process(
    provider: RayProvider, here: RayHere
) -> None:
    requests = [HELLO.model_copy(update={"messages": []}).user_message(q) for q in QUESTIONS]
    config = GGUFConfig(cache_dir=here.cache_dir, **OPTIONS)
    async with GGUFProvider(config) as local:
        expected = [(await local.chat(request)).content() for request in requests]
        vector = (await local.embedding(EmbeddingRequest(model="", input="a text"))).data[0]
        n_tokens = await local.count_tokens(HELLO.messages)
    assert [(await provider.chat(request)).content() for request in requests] == expected
    far = (await provider.embedding(EmbeddingRequest(model="", input="a text"))).data[0]
    assert far.embedding == pytest.approx(vector.embedding, abs=1e-4)
    assert await provider.count_tokens(HELLO.messages) == n_tokens


async def test_a_stream_keeps_to_the_contracts_rules(provider: RayProvider) -> None:
    chunks = [chunk async for chunk in provider.chat_stream(HELLO)]
    assert stream_violations(chunks) == []
    assert len(chunks) > 3
    whole = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert whole == (await provider.chat(HELLO)).content()


async def test_it_tells_of_itself_and_its_model(provider: RayProvider) -> None:
    assert (provider.name(), provider.default_model()) == ("gguf-ray", "demo")
    assert provider.supports_tools()
    assert provider.supports_embedding()
    assert await provider.health_check()
    assert (await provider.get_model_info("")).context_window == OPTIONS["n_ctx"]
    assert await provider.tokenize("Hello!")
    reports = await provider.stats()
    assert len({report.pid for report in reports}) == len(reports) == 2


async def test_errors_arrive_as_the_contracts_with_their_data(provider: RayProvider) -> None:
    with pytest.raises(ContextLengthExceeded) as long:
        await provider.chat(HELLO.user_message("word " * 3000))
    assert long.value.n_ctx == OPTIONS["n_ctx"]
    assert (long.value.n_tokens or 0) > 3000
    with pytest.raises(ModelNotFound) as unknown:
        await provider.chat(HELLO.with_options({"model": "gpt-9"}))
    assert (unknown.value.model, unknown.value.known) == ("gpt-9", ("demo",))
    with pytest.raises(ConfigError) as wrong:
        async for _ in provider.chat_stream(HELLO.with_options({"top_k": "many"})):
            pass
    assert wrong.value.field == "top_k"
    with pytest.raises(ProviderNotSupported):
        await provider.rerank("q", ["a", "b"])
    assert await n_running(provider) == 0


async def test_closing_a_stream_frees_its_sequence(provider: RayProvider) -> None:
    async with aclosing(provider.chat_stream(LONG)) as chunks:
        async for chunk in chunks:
            if chunk.choices[0].delta.content:
                break
        assert await n_running(provider) == 1
    assert await until(provider, lambda n: n == 0) < 2


async def test_cancelling_a_task_frees_its_sequence(provider: RayProvider) -> None:
    task = asyncio.create_task(provider.chat(LONG))
    await until(provider, lambda n: n == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await until(provider, lambda n: n == 0) < 2


async def test_many_clients_are_served_by_both_and_each_gets_its_own(
    provider: RayProvider,
) -> None:
    before = {report.replica: sums(report)[1] for report in await provider.stats()}
    texts = [f"{n} + {n + 1}" for n in range(24)]
    requests = [HELLO.user_message(f"What is {text}?").with_max_tokens(24) for text in texts]
    alone = [(await provider.chat(request)).content() for request in requests]
    together = await asyncio.gather(*(provider.chat(request) for request in requests))
    assert sum(a != b.content() for a, b in zip(alone, together, strict=True)) <= 1  # near ties
    after = {report.replica: sums(report)[1] for report in await provider.stats()}
    assert all(after[name] > n for name, n in before.items())


async def test_what_the_replicas_count_sums_up_to_what_was_answered(provider: RayProvider) -> None:
    def sums_of(reports: tuple[ReplicaReport, ...]) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for report in reports:
            engine = report.status.models[0].engine
            assert engine is not None
            counts["requests"] += engine.n_requests
            counts["read"] += engine.n_prompt_tokens_computed + engine.n_prompt_tokens_cached
            counts["written"] += engine.n_generated_tokens
        return counts

    before = sums_of(await provider.stats())
    asked = [HELLO.user_message(f"Count to {n}.").with_max_tokens(n + 4) for n in range(12)]
    answers = await asyncio.gather(
        *(provider.chat(each.with_options({"ignore_eos": True})) for each in asked)
    )
    usage = [answer.usage for answer in answers if answer.usage is not None]
    after = sums_of(await provider.stats())
    assert {name: n - before[name] for name, n in after.items()} == {
        "requests": 12,
        "read": sum(each.prompt_tokens for each in usage),
        "written": sum(each.completion_tokens for each in usage),
    }


async def test_ray_reserves_what_was_asked_for_and_what_the_load_plan_says(here: RayHere) -> None:
    config = here.config(cpus=1.5, gpus=0.5)
    plan = plan_here(config.gguf, 1)
    assert isinstance(plan, Planned)
    async with RayProvider(config) as made:
        (report,) = await made.stats()
        assert (await made.chat(HELLO)).content()
    expected = {"CPU": 1.5, "GPU": 0.5, "memory": plan.memory_bytes}
    assert report.reserved == pytest.approx(expected, rel=0.01)


async def test_a_reranker_orders_documents_as_in_this_process(here: RayHere) -> None:
    options = {"model": str(RERANKER), "quantization": "F32", "n_threads": 1, "flash_attn": "off"}
    documents = ["a cat is an animal", "it rains", "the cat sat on the mat", "dogs bark"]
    async with GGUFProvider(GGUFConfig(cache_dir=here.cache_dir, **options)) as local:
        expected = await local.rerank("what is a cat", documents, 3)
    config = here.config(**options, n_ctx="auto", replicas=2)
    async with RayProvider(config) as far:
        found = await asyncio.gather(*(far.rerank("what is a cat", documents, 3) for _ in range(4)))
        with pytest.raises(ContextLengthExceeded) as long:
            await far.rerank("it", ["x" * 500])
        with pytest.raises(ConfigError) as wrong:
            await far.rerank("", ["a"])
    for each in found:
        assert [r.index for r in each.results] == [r.index for r in expected.results]
        scores = [r.score for r in expected.results]
        assert [r.score for r in each.results] == pytest.approx(scores, abs=1e-3)
    assert ((long.value.n_tokens or 0), long.value.n_ctx) == (506, 64)
    assert wrong.value.field == "query"


async def test_a_conversation_stays_where_it_was_computed(provider: RayProvider) -> None:
    system = "You are helpful. You answer briefly. " * 8
    conversations = [
        ChatCompletionRequest.new().system(system).user_message(f"My name is {name}.")
        for name in ("Ada", "Bo", "Cleo", "Dan")
    ]
    for turn in range(3):
        for n, request in enumerate(conversations):
            response = await provider.chat(request.with_temperature(0).with_max_tokens(8))
            assert response.timings is not None
            assert response.usage is not None
            if turn or n:
                # The system prompt at least; later, all that was said before.
                assert response.timings.cached_tokens > response.usage.prompt_tokens * 0.6
            answer = response.choices[0].message
            conversations[n] = request.message(answer).user_message("Go on.")


async def test_more_requests_than_the_replicas_take_in_are_refused(here: RayHere) -> None:
    small = here.config(
        replicas=2, deployment="shared", lost_after_s=3, max_parallel=8, max_queue=16
    )
    assert small.limit == 48
    provider = RayProvider(small)
    async with provider:
        tasks = [asyncio.create_task(provider.chat(LONG)) for _ in range(48)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited) as refused:
            await provider.chat(HELLO)
        assert refused.value.limit == 48
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(provider, lambda n: n == 0, within_s=20)
        assert (await provider.chat(HELLO)).content()


async def test_what_is_in_flight_when_it_is_closed_gets_other(here: RayHere) -> None:
    joined = RayProvider(here.config(replicas=2, deployment="shared"))
    task = asyncio.create_task(joined.chat(LONG))
    await until(joined, lambda n: n == 1)
    await joined.close()
    with pytest.raises(Other, match="closed"):
        await task
    with pytest.raises(Other, match="closed"):
        await joined.chat(HELLO)
    await joined.close()


async def test_one_who_joins_leaves_the_replicas_to_the_one_who_began_them(
    provider: RayProvider, here: RayHere
) -> None:
    pids = {report.pid for report in await provider.stats()}
    async with RayProvider(here.config(replicas=2, deployment="shared")) as joined:
        assert {report.pid for report in await joined.stats()} == pids
    assert {report.pid for report in await provider.stats()} == pids
    other = RayProvider(here.config(replicas=2, deployment="shared", n_ctx=512))
    with pytest.raises(ConfigError, match="runs with other options"):
        await other.load()
    await other.close()


def test_programs_without_an_event_loop_use_it_too(provider: RayProvider, here: RayHere) -> None:
    joined = RayProvider(here.config(replicas=2, deployment="shared"))
    with LLMClient(joined) as client:
        assert client.ask("Hello!", temperature=0)
        assert "".join(client.ask_stream("Hello!", temperature=0))


async def test_a_model_of_the_config_file_is_chosen_by_its_name(
    here: RayHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mofa.toml"
    file.write_text(
        f'[providers.x]\nprovider = "gguf"\nmodel = "gone"\ncache_dir = "{here.cache_dir}"\n'
        'models = {gone = "/nowhere/model.gguf", small = {model = "demo", n_ctx = 256}}\n'
        "n_threads = 1\ncpus = 1\nstart_timeout_s = 120\n"
    )
    monkeypatch.setenv("MOFA_GGUF_MODEL", "gone")
    async with open_on_ray(Choice("small", config=file), here.address) as chosen:
        assert chosen.supported_models() == ["small"]
        assert (await chosen.get_model_info("")).context_window == 256
        assert (await chosen.chat(HELLO)).model == "small"


async def test_a_model_that_is_not_there_is_told_before_anything_is_begun(here: RayHere) -> None:
    missing = RayProvider(here.config(model="/nowhere/model.gguf"))
    with pytest.raises(ModelNotFound):
        await missing.load()
    assert not await missing.health_check()
    await missing.close()
