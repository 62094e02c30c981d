"""Generated text as a message: content and tool calls."""

from __future__ import annotations

import json
from typing import Any

from .cases import Message
from .template import MARKS

CALL_START, CALL_END = MARKS[0], MARKS[1]


def parse_answer(text: str) -> Message:
    """An assistant message from generated text; a broken call stays in the content."""
    content, _, rest = text.partition(CALL_START)
    calls: list[dict[str, Any]] = []
    while rest:
        body, end, rest = rest.partition(CALL_END)
        try:
            parsed = json.loads(body)
            function = {"name": parsed["name"], "arguments": json.dumps(parsed["arguments"])}
        except (ValueError, KeyError, TypeError):
            return {"role": "assistant", "content": text}
        if not end:
            return {"role": "assistant", "content": text}
        calls.append({"id": f"call_{len(calls)}", "type": "function", "function": function})
        rest = rest.partition(CALL_START)[2]
    if not calls:
        return {"role": "assistant", "content": content}
    return {"role": "assistant", "content": content.strip() or None, "tool_calls": calls}
