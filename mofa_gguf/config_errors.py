"""What is wrong with options, as one sentence that names the option."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_settings import SettingsError

from mofa_gguf.contract import ConfigError

_LONGEST_SHOWN = 100
_FIELD = re.compile(r'field "(\w+)"')
# Where pydantic says what happened to it, and not what is wrong.
_SAID = {"string_unicode": "holds bytes that are no UTF-8; write it otherwise, or rename the file"}


def config_error(
    error: ValidationError | SettingsError, *, known: Iterable[str], environment_prefix: str
) -> ConfigError:
    """The first problem among options, of which ``known`` are the names."""
    if isinstance(error, SettingsError):
        return _environment_error(error, environment_prefix)
    # A misspelt option is the cause where another is missing, so it is told first.
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    field = str(problem["loc"][0]) if problem["loc"] else "options"
    if problem["type"] == "extra_forbidden":
        return _unknown_option(field, sorted(known))
    if problem["type"] == "missing":
        return ConfigError(
            f"the option {field!r} is missing; give it, or set {environment_prefix}{field.upper()}",
            field=field,
        )
    # A value that may be one thing or another has a problem for each.
    found = [
        _SAID.get(each["type"], each["msg"]).removeprefix("Value error, ")
        for each in error.errors()
        if each["loc"][:1] == problem["loc"][:1] and _is_same(each["input"], problem["input"])
    ]
    message = ", or ".join(dict.fromkeys(each[0].lower() + each[1:] for each in found))
    return ConfigError(f"{field} = {_shown(problem['input'])}: {message}", field=field)


def _is_same(one: object, other: object) -> bool:
    return one is other or bool(one == other)  # NaN is not itself


def _shown(value: object) -> str:
    """As Python writes it, unless that fills a page."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number with too many digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _unknown_option(field: str, known: list[str]) -> ConfigError:
    close = difflib.get_close_matches(field, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ConfigError(
        f"there is no option {field!r} for a gguf provider; {hint}known are {', '.join(known)}",
        field=field,
    )


def _environment_error(error: SettingsError, prefix: str) -> ConfigError:
    """A list or table in the environment that cannot be read; pydantic names it in a sentence."""
    found = _FIELD.search(str(error))
    if found is None:
        return ConfigError(f"the environment's {prefix} variables cannot be read: {error}")
    field = found[1]
    reason = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return ConfigError(
        f"{prefix}{field.upper()} does not hold JSON{reason}; "
        'write a list as ["a", "b"] and a table as {"a": "b"}',
        field=field,
    )
