"""Asks the questions in QUESTIONS (one a line), each after the last answer, and prints them."""

from __future__ import annotations

import os
import sys

import pyarrow as pa
from dora import Node
from mofa_gguf_node.envelope import read_text

_PATIENCE_S = 120.0


def main() -> None:
    node = Node()
    for question in os.environ["QUESTIONS"].strip().splitlines():
        print("question:", question)
        node.send_output("query", pa.array([question]), {"session_id": "asker"})
        while True:
            event = node.next(timeout=_PATIENCE_S)
            if event is None or event["type"] in ("STOP", "ERROR"):
                sys.exit(f"no answer: {event}")
            if event["type"] != "INPUT":
                continue
            text = read_text(event["value"].to_pylist())
            print(f"{event['id']}: {text}")
            if event["id"] in ("answer", "error"):
                break


if __name__ == "__main__":
    main()
