"""Embeds its texts and a question, and asks the question with the nearest text before it."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import pyarrow as pa
from dora import Node
from mofa_gguf_node.envelope import read_text

TEXTS = [
    "The weather in Paris is sunny, with 21 degrees.",
    "MoFA is a framework for building AI agents, written in Rust.",
    "17 plus 25 is 42.",
]
_PATIENCE_S = 120.0


def wait_for(node: Node, port: str) -> Any:
    """The next message at an input."""
    while (event := node.next(timeout=_PATIENCE_S)) is not None and event["type"] != "STOP":
        if event["type"] == "ERROR" or event.get("id") == "error":
            break
        if event["type"] == "INPUT" and event["id"] == port:
            return event["value"]
    sys.exit(f"nothing came at {port}: {event}")


def main() -> None:
    node = Node()
    question = os.environ["QUESTION"]
    node.send_output("texts", pa.array([*TEXTS, question]), {})
    *texts, asked = np.array(wait_for(node, "vectors").to_pylist())
    nearest = max(range(len(TEXTS)), key=lambda n: float(texts[n] @ asked))
    print("nearest:", TEXTS[nearest])
    node.send_output("query", pa.array([f"{TEXTS[nearest]} {question}"]), {})
    print("answer:", read_text(wait_for(node, "answer").to_pylist()))


if __name__ == "__main__":
    main()
