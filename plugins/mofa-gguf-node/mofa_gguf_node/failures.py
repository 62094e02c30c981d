"""Errors of the contract as JSON objects, and back: the same class with the same data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofa_gguf import contract
from mofa_gguf.contract import LLMError, Other

_CLASSES: dict[str, type[LLMError]] = {
    name: value
    for name, value in vars(contract).items()
    if isinstance(value, type) and issubclass(value, LLMError)
}
# Set by every exception, or said by the key "message".
_NOT_DATA = frozenset({"args", "message"})


def to_dict(error: LLMError) -> dict[str, Any]:
    """The error's class, sentence and data: ``{"error": "Timeout", "message": ..., ...}``.

    A class of its own, such as the host's, goes by the contract's name for it.
    """
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _CLASSES)
    data = {
        key: _plain(value)
        for key, value in vars(error).items()
        if key not in _NOT_DATA and not key.startswith("_") and _is_plain(value)
    }
    return {"error": name, "message": error.message, **data}


def from_dict(told: Mapping[str, Any]) -> LLMError:
    """The error that ``to_dict`` told of; an unknown one is Other."""
    kind = _CLASSES.get(str(told.get("error")), Other)
    error = kind(str(told.get("message", "the provider node told of no reason")))
    for key, value in told.items():
        if key in vars(error) and key not in _NOT_DATA:
            setattr(
                error, key, tuple(value) if key == "known" and isinstance(value, list) else value
            )
    return error


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | Path) or (
        isinstance(value, tuple) and bool(value) and all(isinstance(item, str) for item in value)
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
