"""A road in a process of its own, so that each has its threads and memory to itself."""

from __future__ import annotations

import multiprocessing
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from tools.bench.roads import Road
from tools.bench.workloads import WORKLOADS


@dataclass(frozen=True)
class Result:
    """One workload on one road, once."""

    workload: str
    road: str
    wall_s: float
    n_answer: int
    n_prompt_computed: int
    first_token_s: float
    resident_mb: float

    @property
    def decode_tokens_per_s(self) -> float:
        """Speed behind the first token."""
        return (self.n_answer - 1) / max(1e-9, self.wall_s - self.first_token_s)


class RemoteRoad:
    """Runs workloads in a child process, which loads the model when it starts."""

    def __init__(self, make: Callable[..., Road], **options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, options), daemon=False)
        self._process.start()
        self.name: str = self._receive()

    def run(self, workload: str, repeat: int) -> Result:
        """One workload, once. Raises RuntimeError with what went wrong there."""
        self._connection.send((workload, repeat))
        result: Result = self._receive()
        return result

    def close(self) -> None:
        """End the process and what it started."""
        self._connection.send(None)
        self._process.join(60)

    def _receive(self) -> Any:
        answer = self._connection.recv()
        if isinstance(answer, BaseException):
            raise RuntimeError(f"{answer!r} in a contender") from answer
        return answer


def _serve(connection: Connection, make: Callable[..., Road], options: dict[str, Any]) -> None:
    road = make(**options)
    try:
        connection.send(road.name)
        while (asked := connection.recv()) is not None:
            try:
                connection.send(_measure(road, *asked))
            except Exception as error:  # noqa: BLE001 - told to the one who asked
                connection.send(error)
    finally:
        road.close()


def _measure(road: Road, workload: str, repeat: int) -> Result:
    wall, outcomes = WORKLOADS[workload](road, random.Random(f"{workload} {repeat}"))
    return Result(
        workload=workload,
        road=road.name,
        wall_s=wall,
        n_answer=sum(outcome.n_tokens for outcome in outcomes),
        n_prompt_computed=sum(outcome.n_prompt_computed for outcome in outcomes),
        first_token_s=statistics.median(outcome.first_token_s for outcome in outcomes),
        resident_mb=road.n_bytes / 1e6,
    )
