"""What agents do with a model, as prompts of random words."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence

from tools.bench.model import Shape
from tools.bench.roads import Outcome, Road

PROMPT, ANSWER = 16, 64
"""Tokens of one stream."""
FIRST_WORD, LAST_WORD = 300, Shape().n_vocab


def text(rng: random.Random, n_tokens: int) -> list[int]:
    """Random words that occur nowhere else."""
    return [1, *(rng.randrange(FIRST_WORD, LAST_WORD) for _ in range(n_tokens - 1))]


def at_once(
    road: Road, prompts: Sequence[Sequence[int]], n_answer: int
) -> tuple[float, list[Outcome]]:
    """All prompts at the same time, each from a thread of its own."""
    outcomes: list[Outcome | None] = [None] * len(prompts)

    def one(i: int) -> None:
        outcomes[i] = road.complete(prompts[i], n_answer)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(prompts))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - started, [o for o in outcomes if o is not None]


def one_stream(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """a. One stream of ``ANSWER`` tokens after a short prompt."""
    return at_once(road, [text(rng, PROMPT)], ANSWER)


def agents(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """b. Eight agents with one system prompt of 512 tokens, 32-token questions and answers."""
    system = text(rng, 512)
    return at_once(road, [[*system, *text(rng, 33)[1:]] for _ in range(8)], 32)


def conversations(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """c. Four agents, four turns each, interleaved: 64 new tokens and 32 answered a turn."""
    told = [text(rng, 128) for _ in range(4)]
    wall, outcomes = 0.0, []
    for _ in range(4):
        prompts = [[*history, *text(rng, 65)[1:]] for history in told]
        seconds, answers = at_once(road, prompts, 32)
        wall += seconds
        outcomes += answers
        told = [[*p, *a.tokens] for p, a in zip(prompts, answers, strict=True)]
    return wall, outcomes


def short_prompt(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """d. Time to the first token of a short prompt."""
    return at_once(road, [text(rng, 16)], 1)


def streams(n: int) -> Callable[[Road, random.Random], tuple[float, list[Outcome]]]:
    """e. ``n`` streams of 32 tokens after prompts of 32 tokens."""

    def run(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
        return at_once(road, [text(rng, 32) for _ in range(n)], 32)

    return run


WORKLOADS: dict[str, Callable[[Road, random.Random], tuple[float, list[Outcome]]]] = {
    "a one stream": one_stream,
    "b 8 agents, one system prompt": agents,
    "c 4 agents, 4 turns": conversations,
    "d first token": short_prompt,
    **{f"e {n} streams": streams(n) for n in (1, 2, 4, 8, 16)},
}
