"""One request to a replica: its pieces, its cancellation, and the loss of the replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from ray.exceptions import TaskCancelledError
from ray.serve.exceptions import BackPressureError

from mofa_gguf.contract import ApiError, LLMError, NetworkError, Other, RateLimited, Timeout
from mofa_gguf_ray.errors import ReplicaLost
from mofa_gguf_ray.wire import Delivery, Work


@dataclass(frozen=True)
class Patience:
    """How long a provider waits: to be taken in by a replica, and for a sign of it afterwards."""

    taken_in_s: float
    lost_after_s: float


async def pieces_of(
    handle: Any, work: Work, patience: Patience, open_responses: set[Any]
) -> AsyncGenerator[Any, None]:
    """The pieces of an answer as they come. Closing this gives the request up on the replica.

    While it goes on, Ray's response is among ``open_responses``.

    Raises:
        ReplicaLost: the replica died or fell silent.
        Timeout: no replica took the request in.
        LLMError: the request's own error.
    """
    try:
        response = handle.options(stream=True).work.remote(work)
    except Exception as error:  # Ray has many, most of them its own
        raise translated(error) from error
    taken_in = _TakenIn()
    ended = False
    open_responses.add(response)
    try:
        while not ended:
            delivery = await _next(response, taken_in, patience)
            taken_in.replica = delivery.replica or taken_in.replica
            ended = delivery.done or delivery.failure is not None
            for piece in delivery.pieces:
                taken_in.n_pieces += 1
                yield piece
            if delivery.failure is not None:
                raise delivery.failure.error()
    finally:
        open_responses.discard(response)
        if not ended:
            response.cancel()


@dataclass
class _TakenIn:
    """By whom, and what came of it so far."""

    replica: str | None = None
    n_pieces: int = 0


async def _next(response: Any, taken_in: _TakenIn, patience: Patience) -> Delivery:
    begun = taken_in.replica is not None
    limit_s = patience.lost_after_s if begun else patience.taken_in_s
    # A task of its own: that Ray cancelled the request is not that somebody cancelled us.
    coming = asyncio.ensure_future(anext(response))
    try:
        await asyncio.wait({coming}, timeout=limit_s)
    finally:
        if not coming.done():
            coming.add_done_callback(_look_at)  # Ray makes an error of its own of it
            coming.cancel()
    if not coming.done():
        if begun:
            raise _lost(taken_in, f"said nothing for {limit_s:g} s")
        raise Timeout(f"no replica took the request in within {limit_s:g} s", timeout_s=limit_s)
    if coming.cancelled():
        raise _lost(taken_in, "gave the request up")
    try:
        delivery = coming.result()
    except StopAsyncIteration:
        raise _lost(taken_in, "stopped before it had answered") from None
    except BackPressureError as error:
        raise RateLimited("too many requests wait for a replica") from error
    except TaskCancelledError as error:
        raise Other("the provider was closed during the request") from error
    except Exception as error:
        raise translated(error, taken_in.replica, taken_in.n_pieces) from error
    assert isinstance(delivery, Delivery)
    return delivery


def _look_at(task: asyncio.Future[Any]) -> None:
    """So that nobody is told that the task's error was never seen."""
    if not task.cancelled():
        task.exception()


def _lost(taken_in: _TakenIn, what: str) -> ReplicaLost:
    name = taken_in.replica or "a replica"
    return ReplicaLost(
        f"{name} {what}, {taken_in.n_pieces} pieces into its answer",
        replica=taken_in.replica,
        n_pieces=taken_in.n_pieces,
    )


_LOSSES = frozenset(
    {
        "ActorDiedError", "ActorUnavailableError", "RayActorError", "WorkerCrashedError",
        "NodeDiedError", "OwnerDiedError", "ObjectLostError", "ReplicaUnavailableError",
        "OutOfMemoryError", "ActorUnschedulableError", "ReferenceCountingAssertionError",
        "ObjectReconstructionFailedError", "LocalRayletDiedError", "RaySystemError",
    }
)  # fmt: skip


def translated(error: Exception, replica: str | None = None, n_pieces: int = 0) -> LLMError:
    """The contract's error for one of Ray's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
    if names & _LOSSES:
        return ReplicaLost(
            f"{replica or 'a replica'} was lost {n_pieces} pieces into its answer ({reason})",
            replica=replica,
            n_pieces=n_pieces,
        )
    if "DeploymentUnavailableError" in names:
        return NetworkError(f"the deployment has no replicas and gets none ({reason})")
    return ApiError(f"Ray could not deliver the request ({reason})", code="500")
