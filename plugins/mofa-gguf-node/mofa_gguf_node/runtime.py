"""The dora side of a node: dora's events to its logic, the logic's messages to dora.

Events are read in a thread of their own, and the logic runs in an asyncio loop. Two things of dora
1.1 shape this: ``INPUT_CLOSED`` and ``STOP`` overtake messages that are still queued, so an end is
believed only once nothing more comes; and a node may send from one thread while another waits for
events.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mofa_gguf_node.ports import App, Arrived, Outgoing, Send

log = logging.getLogger(__name__)

_POLL_S = 0.2
# Rounds of waiting in vain after which a closed node's queue is taken for empty.
_N_QUIET = 5


@dataclass(frozen=True)
class Ports:
    """A node's inputs, each with the node it comes from, and its outputs."""

    inputs: dict[str, str]
    outputs: frozenset[str]

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Ports:
        """From what dora says of a node: a source is ``node/output``, bare or in a table."""
        inputs = {}
        for name, given in (config.get("inputs") or {}).items():
            source = given.get("source", "") if isinstance(given, Mapping) else given
            inputs[str(name)] = str(source).split("/")[0]
        return cls(inputs, frozenset(map(str, config.get("outputs") or ())))


MakeApp = Callable[[Ports, Send], App]


def run(make_app: MakeApp) -> None:
    """Be a node of the dataflow that started this process, until it is over.

    Raises:
        RuntimeError: this process was not started by dora.
        LLMError: the node's options are wrong.
    """
    from dora import Node

    node = Node()
    app = make_app(Ports.of(node.node_config()), lambda outgoing: _send(node, outgoing))
    asyncio.run(_serve(node, app))


async def _serve(node: Any, app: App) -> None:
    events: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
    over = threading.Event()
    loop = asyncio.get_running_loop()

    def put(event: Mapping[str, Any] | None) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody listens
            loop.call_soon_threadsafe(events.put_nowait, event)

    reader = threading.Thread(target=_read, args=(node, put, over), name="dora-events")
    reader.start()
    starting = asyncio.create_task(app.start())
    try:
        await _follow(events, app)
    finally:
        over.set()
        starting.cancel()
        await asyncio.wait([starting])
        await app.stop()
        await asyncio.to_thread(reader.join)


async def _follow(events: asyncio.Queue[Mapping[str, Any] | None], app: App) -> None:
    """Hand events to the logic, until no more can come and everything is dealt with."""
    n_quiet, ended = 0, False
    while not (app.is_idle() and (ended or (app.is_over() and n_quiet >= _N_QUIET))):
        try:
            event = await asyncio.wait_for(events.get(), _POLL_S if ended else None)
        except asyncio.TimeoutError:
            continue
        n_quiet = n_quiet + 1 if event is not None and event["type"] == "QUIET" else 0
        if event is None:
            ended = True
        elif not _dispatch(event, app):
            return


def _dispatch(event: Mapping[str, Any], app: App) -> bool:
    """Tell the logic of one event; False when the user stops the dataflow."""
    kind = event["type"]
    if kind == "INPUT":
        app.arrived(Arrived(event["id"], event["values"], event["metadata"]))
    elif kind == "INPUT_CLOSED":
        app.closed(event["id"])
    elif kind == "NODE_RESTARTED":
        app.restarted(event["id"])
    elif kind == "STOP":
        return event.get("id") == "ALL_INPUTS_CLOSED"
    elif kind == "ERROR":
        log.warning("dora: %s", str(event.get("error")).splitlines()[0])
    return True


def _read(
    node: Any, put: Callable[[Mapping[str, Any] | None], None], over: threading.Event
) -> None:
    while not over.is_set():
        event = node.next(timeout=_POLL_S)
        if event is None:
            put(None)
            return
        put(_plain(event))


def _plain(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event without arrow, and a time-out as QUIET."""
    kind = event["type"]
    if kind == "INPUT":
        return {
            "type": kind,
            "id": event["id"],
            "values": _values(event.get("value")),
            "metadata": dict(event.get("metadata") or {}),
        }
    if kind == "ERROR" and str(event.get("error", "")).startswith("Timeout event stream error"):
        return {"type": "QUIET"}
    return {key: event.get(key) for key in ("type", "id", "error")}


def _values(array: Any) -> list[object]:
    if array is None:
        return []
    try:
        return list(array.to_pylist())
    # Arrow has types that Python cannot hold, and each has an exception of its own.
    except Exception as error:  # noqa: BLE001
        log.warning("a message cannot be read: %s", error)
        return [None]


def _send(node: Any, outgoing: Outgoing) -> None:
    import pyarrow as pa

    if isinstance(outgoing.payload, str):
        array = pa.array([outgoing.payload])
    else:
        array = pa.array(outgoing.payload, pa.list_(pa.float32()))
    try:
        node.send_output(outgoing.port, array, dict(outgoing.metadata))
    except RuntimeError as error:  # the dataflow ends, and nobody is there to read it
        log.warning("a message to %s was not sent: %s", outgoing.port, error)
