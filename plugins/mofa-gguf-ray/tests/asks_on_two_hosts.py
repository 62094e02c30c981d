"""An agent's program on the first of two hosts: 16 clients through one provider.

``python asks_on_two_hosts.py ADDRESS``. It says a line of JSON for each step; where the test has
something to do with the hosts, it goes on when it is told a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from mofa_gguf_ray import RayConfig, RayProvider

from mofa_gguf import ChatCompletionRequest, GGUFConfig, GGUFProvider, LLMError, LLMProvider

STREAMS, CHATS = range(12), range(12, 16)
CLIENTS = (*STREAMS, *CHATS)
LOST_AFTER_S = 5.0
# No answer depends on what is computed beside it.
MODEL: dict[str, Any] = {
    "model": "demo", "quantization": "F32", "n_ctx": 16384, "n_threads": 1, "flash_attn": "off",
    "speculation": "off", "cache_type_k": "f32", "cache_type_v": "f32",
}  # fmt: skip
started = time.monotonic()


def question(number: int) -> ChatCompletionRequest:
    """One client's question."""
    asked = ChatCompletionRequest.new().system(f"You are agent {number}.")
    return asked.user_message(f"What is {number} + {number + 3}?").with_temperature(0)


def long_question(number: int) -> ChatCompletionRequest:
    """A question whose answer takes a while."""
    return question(number).with_options({"ignore_eos": True, "max_tokens": 400})


async def answers(provider: LLMProvider) -> list[str | None]:
    """What all clients are answered, asked at once."""
    asked = [provider.chat(question(number)) for number in CLIENTS]
    return [answer.content() for answer in await asyncio.gather(*asked)]


@dataclass
class Outcome:
    """What became of a client's long question."""

    number: int
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    text: str = ""
    error: LLMError | None = None

    @property
    def name(self) -> str:
        return "whole" if self.error is None else type(self.error).__name__


async def stream(provider: LLMProvider, outcome: Outcome) -> None:
    """Read a long answer piece by piece."""
    try:
        async for chunk in provider.chat_stream(long_question(outcome.number)):
            outcome.text += chunk.choices[0].delta.content or ""
            outcome.begun.set()
    except LLMError as error:
        outcome.error = error
    outcome.begun.set()


async def chat(provider: LLMProvider, outcome: Outcome) -> None:
    """Get a long answer whole."""
    outcome.begun.set()
    try:
        outcome.text = (await provider.chat(long_question(outcome.number))).content() or ""
    except LLMError as error:
        outcome.error = error


async def ask_all(provider: LLMProvider, *, then: Callable[[], Awaitable[None]]) -> list[Outcome]:
    """All clients ask at once; ``then`` is done when every stream has begun."""
    outcomes = [Outcome(number) for number in CLIENTS]
    tasks = [
        asyncio.create_task((stream if each.number in STREAMS else chat)(provider, each))
        for each in outcomes
    ]
    await asyncio.gather(*(outcome.begun.wait() for outcome in outcomes))
    await then()
    await asyncio.gather(*tasks)
    return outcomes


def say(step: str, **facts: Any) -> None:
    at_s = round(time.monotonic() - started, 1)
    print(json.dumps({"step": step, "at_s": at_s, **facts}), flush=True)


async def told() -> None:
    """Wait for the test."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def nothing() -> None:
    """Go on at once."""


async def work_by_node(provider: RayProvider) -> dict[str, int]:
    """Requests that each host's replica has taken in so far."""
    work: Counter[str] = Counter()
    for report in await provider.stats():
        work[report.node] += sum(each.engine.n_requests for each in report.status.models)
    return dict(work)


async def until_both_serve(provider: RayProvider) -> dict[str, int]:
    """Work by host, once there is a replica on each."""
    work: dict[str, int] = {}
    while len(work) < 2:
        await asyncio.sleep(0.2)
        with contextlib.suppress(LLMError):
            work = await work_by_node(provider)
    return work


async def until_declared_dead() -> None:
    """Return when Ray has given a host up."""
    while all(node["Alive"] for node in ray.nodes()):  # noqa: ASYNC110 - Ray tells nobody
        await asyncio.sleep(0.2)


def facts_of(outcomes: list[Outcome], whole: dict[int, str]) -> dict[str, Any]:
    """What became of the clients' long questions."""
    return {
        "streams": Counter(o.name for o in outcomes if o.number in STREAMS),
        "chats": Counter(o.name for o in outcomes if o.number in CHATS),
        "wrong": [o.number for o in outcomes if o.error is None and o.text != whole[o.number]],
        "wrong_begun": [o.number for o in outcomes if not whole[o.number].startswith(o.text)],
        "errors": sorted({str(o.error) for o in outcomes if o.error is not None}),
    }


async def be_cut_off(
    patient: RayProvider, strict: RayProvider, right: list[str | None], whole: dict[int, str]
) -> None:
    """All clients ask through both providers, and some once more just after a host is gone."""
    streaming = [asyncio.Event(), asyncio.Event()]
    is_cut = asyncio.Event()

    def then(begun: asyncio.Event) -> Callable[[], Awaitable[None]]:
        async def wait() -> None:
            begun.set()
            await is_cut.wait()

        return wait

    asked = [
        asyncio.create_task(ask_all(provider, then=then(begun)))
        for provider, begun in zip((patient, strict), streaming, strict=True)
    ]
    for begun in streaming:
        await begun.wait()
    say("streaming")
    await told()
    began = time.monotonic()
    is_cut.set()
    late = asyncio.create_task(answers(patient))
    sent_again, failed = await asyncio.gather(*asked)
    say("cut off", seconds=time.monotonic() - began, **facts_of(sent_again, whole))
    say("cut off without retries", **facts_of(failed, whole))
    say("asked just after", right=await late == right, seconds=time.monotonic() - began)


async def through_ray(right: list[str | None], whole: dict[int, str]) -> None:
    options: dict[str, Any] = {
        **MODEL, "replicas": 2, "cpus": 1, "memory": 0, "max_replicas_per_node": 1,
        "routing": "round-robin", "ray_address": sys.argv[1], "lost_after_s": LOST_AFTER_S,
        "deployment": "hosts",
    }  # fmt: skip
    async with (
        RayProvider(RayConfig(**options, retries_on_loss=1)) as provider,
        RayProvider(RayConfig(**options, retries_on_loss=0)) as strict,
    ):
        await provider.load()
        await strict.load()
        await until_both_serve(provider)
        say("answered", right=await answers(provider) == right, work=await work_by_node(provider))
        await be_cut_off(provider, strict, right, whole)
        began = time.monotonic()
        said = [await answers(each) for each in (provider, strict)]
        say("one left", right=said == [right, right], seconds=time.monotonic() - began)
        await until_declared_dead()
        say("dead")
        await told()
        before = await until_both_serve(provider)
        said = [await answers(each) for each in (provider, strict)]
        work = await work_by_node(provider)
        say("back", right=said == [right, right], before=before, work=work)
    say("closed")


async def main() -> None:
    async with GGUFProvider(GGUFConfig(**MODEL)) as alone:
        right = await answers(alone)
        whole = {each.number: each.text for each in await ask_all(alone, then=nothing)}
    say("alone", n_different=len({*right, *whole.values()}))
    await through_ray(right, whole)


asyncio.run(main())
