"""A whole answer as JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse


class JsonAnswer(JSONResponse):
    """JSON with a question mark for half a surrogate pair, as in a stream's events."""

    def render(self, content: Any) -> bytes:
        """The body's bytes. Raises ValueError for numbers that JSON does not have."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", errors="replace")
