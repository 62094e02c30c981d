"""What the tests on Ray ask, and how they look at the replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from mofa_gguf_ray import RayProvider, ReplicaReport

from mofa_gguf.contract import ChatCompletionRequest

HELLO = ChatCompletionRequest.new().user_message("Hello!").with_temperature(0)
LONG = (
    ChatCompletionRequest.new()
    .user_message("Go on.")
    .with_options({"temperature": 1.0, "max_tokens": 900, "regex": "[a-z ]{4000}"})
)
"""An answer that takes a while."""


def sums(report: ReplicaReport) -> tuple[int, int]:
    """How many requests a replica has, and how many it has had."""
    engines = [model.engine for model in report.status.models if model.engine is not None]
    running = sum(engine.n_running + engine.n_waiting for engine in engines)
    return running, sum(engine.n_requests for engine in engines)


async def n_running(provider: RayProvider) -> int:
    """The requests that all replicas work on."""
    return sum(sums(report)[0] for report in await provider.stats())


async def until(provider: RayProvider, holds: Callable[[int], bool], within_s: float = 10) -> float:
    """Seconds until the number of running requests is so."""
    began_s = time.monotonic()
    while not holds(await n_running(provider)):
        assert time.monotonic() < began_s + within_s
        await asyncio.sleep(0.02)
    return time.monotonic() - began_s
