"""Reading a configuration file: TOML, YAML or JSON, with values from the environment.

The functions here know formats, not meanings: they give plain dictionaries, or a ``ConfigError``
that says where the file is wrong.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mofa_gguf.contract.errors import ConfigError
from mofa_gguf.host.names import listed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger(__name__)

_MAX_DEPTH = 32
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def read_table(path: Path) -> dict[str, Any]:
    """The table a configuration file holds, its values as they stand there.

    Raises:
        ConfigError: the file is missing, unreadable, of an unknown format or malformed, has a key
            twice, or is no table of plain values.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigError(
            f"{path}: the ending {path.suffix!r} is no known format; "
            f"known are {listed(sorted(_PARSERS))}",
            path=path,
            known=sorted(_PARSERS),
        )
    try:
        table = parse(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}", path=path) from error
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: holds a {_json_name(table)}, not a table of keys", path=path)
    _check_plain(table, path, where=())
    return table


def interpolate(value: Any, environment: Mapping[str, str]) -> Any:
    """``value`` with ``${NAME}`` and ``$NAME`` in its strings replaced from the environment.

    What the environment does not have is left as it is, as in MoFA. Replaced text is not looked at
    again. Keys, and values that are no strings, are left alone; a replaced value stays a string.
    """
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _look_up(match, environment), value)
    if isinstance(value, dict):
        return {key: interpolate(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environment) for item in value]
    return value


def _look_up(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name = match[1] or match[2]
    if name not in environment:
        log.warning("configuration: %s is not in the environment; %s stays", name, match[0])
    return environment.get(name, match[0])


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file", path=path) from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; name the file in it", path=path) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason})", path=path) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})", path=path) from error


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not valid TOML: {error}") from error


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from error


def _parse_yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader, which silently lets the last of two equal keys win, made to refuse."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            for n, (key, _) in enumerate(node.value):
                if any(key.value == other.value for other, _ in node.value[:n]):
                    line = key.start_mark.line + 1
                    raise ValueError(f"has the key {key.value!r} twice (line {line})")
            return node

    # How serde_yaml writes MoFA's FallbackTriggerConfig::Conditions.
    Loader.add_constructor("!conditions", _construct_conditions)
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"is not valid YAML: {error}") from error


def _construct_conditions(loader: Any, node: Any) -> dict[str, Any]:
    return {"conditions": loader.construct_sequence(node, deep=True)}


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": _parse_toml,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": _parse_json,
}


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"has the key {key!r} twice")
        table[key] = value
    return table


def _check_plain(value: Any, path: Path, where: tuple[str, ...]) -> None:
    """Refuse what JSON cannot say (dates, keys that are no text) and endless nesting."""
    place = ".".join(where)
    if len(where) > _MAX_DEPTH:
        raise ConfigError(f"{path}: is nested more than {_MAX_DEPTH} levels deep", path=path)
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ConfigError(
                    f"{path}: the key {key!r}{f' in {place}' if place else ''} is not text; "
                    "put it in quotes",
                    path=path,
                )
            _check_plain(item, path, (*where, key))
    elif isinstance(value, list):
        for n, item in enumerate(value):
            _check_plain(item, path, (*where, str(n)))
    elif not isinstance(value, str | int | float | bool | None):
        raise ConfigError(
            f"{path}: {place} is a {type(value).__name__}, which no option takes; "
            "put it in quotes if text is meant",
            path=path,
            field=place,
        )


def _json_name(value: Any) -> str:
    names: dict[type, str] = {list: "list", str: "string"}
    return names.get(type(value), type(value).__name__)
