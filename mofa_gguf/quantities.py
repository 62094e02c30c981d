"""Sizes and durations as people write them: ``8GiB``, ``1h30m``."""

from __future__ import annotations

import re

FOREVER = -1.0
"""A duration without end."""
_AGES = 1e12
"""A duration that is no other to anybody."""
_MOST_BYTES = 2**63 - 1

_UNITS_OF_SIZE = {
    "": 1, "b": 1,
    "k": 2**10, "kib": 2**10, "kb": 10**3,
    "m": 2**20, "mib": 2**20, "mb": 10**6,
    "g": 2**30, "gib": 2**30, "gb": 10**9,
    "t": 2**40, "tib": 2**40, "tb": 10**12,
}  # fmt: skip
_UNITS_OF_TIME = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_PART_OF_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def read_bytes(value: object) -> int:
    """A number of bytes, or text such as ``8GiB``, ``500 MB`` or ``16g`` (powers of two).

    Raises ValueError.
    """
    n_bytes: float = -1
    if isinstance(value, int) and not isinstance(value, bool):
        n_bytes = value
    elif isinstance(value, str):
        match = _SIZE.fullmatch(value.strip().lower())
        if match is not None and match[2] in _UNITS_OF_SIZE:
            n_bytes = float(match[1]) * _UNITS_OF_SIZE[match[2]]
    if n_bytes < 0:
        raise ValueError("a size is a number of bytes or text such as '8GiB' or '500MB'")
    if n_bytes > _MOST_BYTES:
        raise ValueError("a size must be less than 8 EiB")
    return int(n_bytes)


def read_seconds(value: object) -> float:
    """Seconds, or text such as ``90``, ``5m`` or ``1h30m``; what is negative is for ever.

    Raises ValueError.
    """
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(max(min(value, _AGES), -_AGES))
    elif isinstance(value, str):
        seconds = _read_text(value.strip().lower())
    if seconds is None or seconds != seconds:
        raise ValueError("a duration is a number of seconds or text such as '5m' or '1h30m'")
    return FOREVER if seconds < 0 or seconds >= _AGES else seconds


def _read_text(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    sign = -1 if text.startswith("-") else 1
    rest = text.lstrip("-")
    if not rest or _PART_OF_TIME.sub("", rest):
        return None
    return sign * sum(
        float(number) * _UNITS_OF_TIME[unit] for number, unit in _PART_OF_TIME.findall(rest)
    )
