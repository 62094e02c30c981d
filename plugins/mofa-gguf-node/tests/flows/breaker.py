"""Does its worst to an agent and its provider node, and prints what it hears of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from dora import Node
from mofa_gguf_node.envelope import read_text

_PATIENCE_S = 300.0

node = Node()


def wait_for(*ports: str, session: str | None = None) -> tuple[str, Any]:
    """The next message at one of the inputs, of a session if one is named."""
    while True:
        event = node.next(timeout=_PATIENCE_S)
        if event is None or event["type"] in ("STOP", "ERROR"):
            raise SystemExit(f"nothing came at {ports}: {event}")
        if event["type"] != "INPUT" or event["id"] not in ports:
            continue
        if session is None or event["metadata"].get("session_id") == session:
            return event["id"], event["value"][0].as_py()


def outcome() -> str:
    """How the query ended."""
    port, value = wait_for("answer", "error")
    return json.loads(value)["error"] if port == "error" else read_text([value])


def ask(array: pa.Array) -> str:
    node.send_output("query", array, {})
    return outcome()


def provider_process() -> psutil.Process:
    """The provider node of this dataflow."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        is_provider = any("mofa-gguf-provider" in word for word in words)
        if is_provider and Path(process.cwd()) == Path.cwd():
            return process
    raise SystemExit("there is no provider node")


def refusal() -> str:
    """What the provider node itself says to junk, its greetings left aside."""
    while (reply := json.loads(wait_for("reply")[1]))["op"] != "error":
        pass
    return str(reply["error"])


def state() -> str:
    return str(json.loads(wait_for("status")[1])["status"])


while state() != "ready":
    pass

print("before:", ask(pa.array(["What is MoFA?"])))

# Killed in the middle of an answer; a second time should the first have come too late.
for attempt in ("first", "second"):
    victim = provider_process()
    node.send_output("query", pa.array(["Tell me everything."]), {"session_id": attempt})
    wait_for("piece", session=attempt)
    victim.kill()
    ended = outcome()
    if ended == "NetworkError":
        break
print("killed:", ended)
print("asked again:", ask(pa.array(["What is MoFA?"])))

# Garbage, to the agent and to the provider node itself.
for name, array in {
    "empty": pa.array([], pa.string()),
    "null": pa.array([None], pa.string()),
    "struct": pa.array([{"a": 1}]),
    "bytes": pa.array([b"\xff\xfe"]),
}.items():
    print(f"{name}:", ask(array))
for junk in ("not json", "{}", '{"op": "chat", "request": {"messages": 7}}'):
    node.send_output("junk", pa.array([junk]), {"request_id": junk})
    print("junk:", refusal())
node.send_output("junk", pa.array([1, 2, 3]), {})
print("junk:", refusal())

# More than the context holds, in a message that dora still sends as a small one.
print("too long:", ask(pa.array(["hello " * 580])))

print("after:", ask(pa.array(["What is MoFA?"])))
