"""Asks eight agents at once, and prints their answers and the model's counts."""

from __future__ import annotations

import json
import os

import pyarrow as pa
from dora import Node
from mofa_gguf_node.envelope import read_text

_PATIENCE_S = 300.0

node = Node()
n_agents = int(os.environ["AGENTS"])
states: set[str] = set()
answers: dict[str, str] = {}
stats: dict[str, object] = {}


def ready() -> bool:
    return len(states) == n_agents


asked = False
while len(answers) < n_agents or stats.get("n_requests", 0) != n_agents:
    event = node.next(timeout=_PATIENCE_S)
    if event is None or event["type"] in ("STOP", "ERROR"):
        raise SystemExit(f"it ended early: {event}")
    if event["type"] != "INPUT":
        continue
    text = event["value"][0].as_py()
    kind, _, who = event["id"].partition("_")
    if kind == "status" and json.loads(text)["status"] == "ready":
        states.add(who)
    elif kind == "answer":
        answers[who] = read_text([text])
    elif kind == "stats":
        stats = json.loads(text)
    if ready() and not asked:
        asked = True
        node.send_output("query", pa.array(["What is MoFA?"]), {})
for who, answer in sorted(answers.items()):
    print(f"answer: {who} {answer}")
print("stats:", json.dumps(stats))
