"""Asks two agents the same, in every form a query may have, and prints what each sent back."""

from __future__ import annotations

import json

import pyarrow as pa
from dora import Node

_PATIENCE_S = 300.0
_QUERIES = [
    "What is MoFA?",
    json.dumps({"step_name": "asker", "node_results": "Thank you!", "dataflow_status": False}),
]

node = Node()
for number, query in enumerate(_QUERIES):
    node.send_output("query", pa.array([query]), {"number": number, "session_id": f"s{number}"})
    answered: set[str] = set()
    while answered != {"ours", "stock"}:
        event = node.next(timeout=_PATIENCE_S)
        if event is None or event["type"] in ("STOP", "ERROR"):
            raise SystemExit(f"no answer: {event}")
        if event["type"] != "INPUT":
            continue
        answered.add(event["id"])
        metadata = {key: event["metadata"].get(key) for key in ("number", "session_id")}
        said = {"type": str(event["value"].type), "text": event["value"].to_pylist()}
        print(f"{event['id']}: {json.dumps({**said, **metadata})}", flush=True)
