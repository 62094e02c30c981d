"""A checkpoint's JSON files, read with bounds, and typed access to config.json.

Nothing in these files is believed: a wrong number in a model's header can end the process inside
llama.cpp, so every value is checked for its type and range where it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mofa_gguf.convert.errors import CheckpointError

MAX_JSON_BYTES = 64 * 1024 * 1024
"""Larger JSON files are refused; the index of a model with many shards has a few MB."""
_MAX_INT32 = 2**31 - 1
_MAX_FLOAT32 = 3.0e38


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> object:
    """The value in a JSON file. Raises CheckpointError if it is absent, too large or no JSON."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointError(path, "is no regular file")
        if size > max_bytes:
            raise CheckpointError(path, f"has {size} bytes; at most {max_bytes} are read")
        text = path.read_bytes().decode("utf-8")
        return json.loads(text)
    except FileNotFoundError as error:
        raise CheckpointError(path, "is missing") from error
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})") from error
    except RecursionError as error:
        raise CheckpointError(path, "is nested too deeply") from error
    except ValueError as error:
        raise CheckpointError(path, f"is no valid JSON ({error})") from error


def read_json_object(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, object]:
    """Like :func:`read_json`, for a file that must hold an object."""
    value = read_json(path, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise CheckpointError(path, "does not hold a JSON object")
    return value


class Config:
    """Values of config.json (or of an object inside it) by name, each checked when it is asked for.

    Several names may be given where versions of transformers use different ones: the first that
    is present and not null counts. Without a ``default`` the value must be there. Everything that
    does not fit raises CheckpointError with the file, the name and what was expected.
    """

    def __init__(self, values: Mapping[str, object], path: Path, *, prefix: str = "") -> None:
        self.values = values
        self.path = path
        self._prefix = prefix
        self._spelling: dict[str, str] = {}
        self._nulls_are_false = False

    def completed(self, defaults: Mapping[str, object], renamed: Mapping[str, str]) -> Config:
        """With ``defaults`` for what is absent, and ``renamed`` values under their common names.

        A null is not absent, and counts as false where true or false is asked for. Errors name a
        value as the file does.
        """
        config = Config({**defaults, **self.values}, self.path, prefix=self._prefix)
        config._nulls_are_false = True
        values = dict(config.values)
        for spelled, name in renamed.items():
            if spelled in self.values and name not in self.values:
                values[name] = self.values[spelled]
                config._spelling[name] = spelled
        config.values = values
        return config

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.values.get(name) is not None

    def fail(self, name: str, problem: str) -> CheckpointError:
        """The error to raise for the value called ``name``."""
        return CheckpointError(
            self.path, f"{self._prefix}{self._spelling.get(name, name)} {problem}"
        )

    def _is_null(self, names: tuple[str, ...]) -> bool:
        """Whether a null stands for false, as it does to Python in a model's configuration."""
        return self._nulls_are_false and any(name in self.values for name in names)

    def _find(self, names: tuple[str, ...]) -> tuple[str, object]:
        for name in names:
            value = self.values.get(name)
            if value is not None:
                return name, value
        return names[0], None

    def integer(
        self,
        *names: str,
        default: int | None = None,
        minimum: int = 1,
        maximum: int = _MAX_INT32,
    ) -> int:
        """A whole number between ``minimum`` and ``maximum``."""
        name, value = self._find(names)
        if value is None and default is not None:
            return default
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not minimum <= value <= maximum:  # type: ignore[operator]
            expected = f"must be a whole number from {minimum} to {maximum}"
            raise self.fail(name, expected if value is None else f"{expected}, not {value!r:.60}")
        assert isinstance(value, int)
        return value

    def number(
        self,
        *names: str,
        default: float | None = None,
        minimum: float = -_MAX_FLOAT32,
        maximum: float = _MAX_FLOAT32,
    ) -> float:
        """A finite number between ``minimum`` and ``maximum`` (a 32-bit float holds it)."""
        name, value = self._find(names)
        if value is None and default is not None:
            return default
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            # Not isfinite, for which whole numbers of many digits are too large.
            or not minimum <= value <= maximum
        ):
            problem = "must be a number" if value is None else f"must not be {value!r:.60}"
            raise self.fail(name, problem)
        return float(value)

    def numbers(self, name: str, *, length: int, minimum: float = -_MAX_FLOAT32) -> list[float]:
        """A list of ``length`` finite numbers, each at least ``minimum``."""
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) != length:
            raise self.fail(name, f"must be a list of {length} numbers")
        items = Config({str(i): item for i, item in enumerate(value)}, self.path, prefix=f"{name} ")
        return [items.number(str(i), minimum=minimum) for i in range(length)]

    def boolean(self, *names: str, default: bool) -> bool:
        """True or false."""
        name, value = self._find(names)
        if value is None:
            return default and not self._is_null(names)
        if not isinstance(value, bool):
            raise self.fail(name, f"must be true or false, not {value!r:.60}")
        return value

    def string(self, *names: str, default: str) -> str:
        """A text."""
        name, value = self._find(names)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.fail(name, f"must be a text, not {value!r:.60}")
        return value

    def section(self, *names: str) -> Config | None:
        """An object inside this one, or None where it is absent or null."""
        name, value = self._find(names)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fail(name, f"must be an object, not {value!r:.60}")
        return Config(value, self.path, prefix=f"{self._prefix}{name}.")
