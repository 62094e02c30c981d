"""One thing that ``mofa-gguf doctor`` has looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``advice`` says what to do about a note or a fault."""

    what: str
    verdict: Verdict
    detail: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
