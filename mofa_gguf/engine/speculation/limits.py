"""How far ahead tokens are guessed."""

from __future__ import annotations

MAX_DRAFT = 32
"""Most tokens that are guessed ahead for one sequence."""
MAX_DRAFT_PER_STEP = 64
"""Most tokens that are guessed ahead in one step."""
