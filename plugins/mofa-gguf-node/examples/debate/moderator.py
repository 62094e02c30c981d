"""Hands what one agent says to the other, TURNS times, and prints it."""

from __future__ import annotations

import os
import sys

import pyarrow as pa
from dora import Node
from mofa_gguf_node.envelope import read_text

_PATIENCE_S = 120.0
_OTHER = {"hopeful": "doubtful", "doubtful": "hopeful"}


def main() -> None:
    node = Node()
    speaker, said = "hopeful", os.environ["TOPIC"]
    for _ in range(int(os.environ["TURNS"])):
        node.send_output(f"to_{speaker}", pa.array([said]), {})
        while (event := node.next(timeout=_PATIENCE_S)) is not None and event["type"] != "INPUT":
            if event["type"] in ("STOP", "ERROR"):
                sys.exit(f"no answer: {event}")
        said = read_text(event["value"].to_pylist())
        print(f"{speaker}: {said}")
        speaker = _OTHER[speaker]


if __name__ == "__main__":
    main()
