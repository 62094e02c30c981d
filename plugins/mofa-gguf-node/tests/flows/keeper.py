"""Asks again and again until the dataflow is stopped, and prints what it hears."""

from __future__ import annotations

import json

import pyarrow as pa
from dora import Node
from mofa_gguf_node.envelope import read_text

_PATIENCE_S = 300.0

node = Node()
node.send_output("query", pa.array(["What is MoFA?"]), {})
while (event := node.next(timeout=_PATIENCE_S)) is not None:
    if event["type"] in ("STOP", "ERROR"):
        break
    if event["type"] != "INPUT":
        continue
    text = event["value"][0].as_py()
    if event["id"] == "status":
        print(f"status: {json.loads(text)['status']}", flush=True)
        continue
    said = json.loads(text)["error"] if event["id"] == "error" else read_text([text])
    print(f"{event['id']}: {said}", flush=True)
    node.send_output("query", pa.array(["What is MoFA?"]), {})
