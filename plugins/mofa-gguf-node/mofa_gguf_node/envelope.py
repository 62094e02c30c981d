"""MoFA's message envelope: what ``mofa-core`` agents write and read.

It is JSON with the keys ``step_name``, ``node_results`` and ``dataflow_status`` (mofa-core 0.1.36,
``mofa/agent_build/base/base_agent.py``: ``create_agent_output``, ``load_node_result``). Text that
is no such envelope is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mofa_gguf.contract import SerializationError

_RESULT = "node_results"


def read_text(values: Sequence[object]) -> str:
    """The text of a message, out of its envelope if it is in one.

    Raises:
        SerializationError: the message is empty, or holds no text.
    """
    if not values:
        raise SerializationError("the message is empty; send one text")
    value = values[0]
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise SerializationError(f"the message is not text ({error})") from error
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SerializationError(
            f"the message is a {type(value).__name__}; send text, bare or in MoFA's envelope"
        )
    return _unwrapped(str(value))


def read_texts(values: Sequence[object]) -> list[str]:
    """The texts of a message: its elements, or the JSON list that its only one holds.

    Raises:
        SerializationError: as ``read_text``, or the list holds something else.
    """
    texts = [read_text([value]) for value in values] or [read_text(values)]
    if len(texts) == 1 and texts[0].lstrip().startswith("["):
        listed = _parsed(texts[0])
        if isinstance(listed, list):
            if not listed or not all(isinstance(text, str) for text in listed):
                raise SerializationError("the list holds something else than texts")
            return listed
    return texts


def write_result(step_name: str, result: str, *, is_end: bool | str = True) -> str:
    """A result in the envelope, as mofa-core's ``create_agent_output`` writes it."""
    return json.dumps(
        {"step_name": step_name, _RESULT: result, "dataflow_status": is_end}, ensure_ascii=False
    )


def _unwrapped(text: str) -> str:
    found = _parsed(text) if text.lstrip().startswith("{") else None
    if not isinstance(found, dict) or _RESULT not in found:
        return text
    result = found[_RESULT]
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
