"""Names in a configuration file's fallback chains, replaced by the tables they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofa_gguf.contract.errors import ConfigError
from mofa_gguf.host.names import did_you_mean, listed

CHAIN_KIND = "fallback-chain"
"""The provider kind of a chain."""

_REFERENCE_KEYS = frozenset({"use", "trigger"})


def expand_chains(file: Path, tables: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The providers' tables, with every chain holding the tables of its providers.

    An entry ``"name"`` or ``{use = "name", trigger = ...}`` becomes the table of that name.

    Raises:
        ConfigError: a name is unknown, or a chain holds itself.
    """
    return {name: _expanded(file, tables, name, table, ()) for name, table in tables.items()}


def _expanded(
    file: Path,
    tables: Mapping[str, dict[str, Any]],
    name: str,
    table: dict[str, Any],
    holders: tuple[str, ...],
) -> dict[str, Any]:
    entries = table.get("providers")
    if table.get("provider") != CHAIN_KIND or not isinstance(entries, list):
        return table
    place = f"providers.{name}.providers"
    if name in holders:
        loop = " -> ".join((*holders[holders.index(name) :], name))
        raise ConfigError(
            f"{file}: {place}: the chain holds itself ({loop})", field=place, path=file
        )
    inside = []
    for n, entry in enumerate(entries):
        used, trigger = _reference(file, entry, f"{place}.{n}", tables)
        if used is None:
            # A chain written out inside a chain has no name that another could use.
            inside.append(_expanded(file, tables, f"{name}.providers.{n}", entry, (*holders, name)))
        else:
            found = _expanded(file, tables, used, tables[used], (*holders, name))
            inside.append({**found, **trigger})
    return {**table, "providers": inside}


def _reference(
    file: Path, entry: Any, place: str, tables: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any]]:
    """The name an entry uses, if it is no table of its own, and the trigger beside it."""
    if isinstance(entry, str):
        entry = {"use": entry}
    if not isinstance(entry, dict):
        raise ConfigError(
            f"{file}: {place} is neither a provider's name nor a table", field=place, path=file
        )
    if "use" not in entry:
        return None, {}
    used = entry["use"]
    if unknown := sorted(entry.keys() - _REFERENCE_KEYS):
        raise ConfigError(
            f"{file}: {place}: beside use there may be a trigger only, not {listed(unknown)}; "
            f"set it in the table of {used!r}",
            field=f"{place}.{unknown[0]}",
            path=file,
        )
    if not isinstance(used, str) or used not in tables:
        raise ConfigError(
            f"{file}: {place}: there is no provider {used!r}{did_you_mean(str(used), tables)}; "
            f"the file has {listed(tables)}",
            field=place,
            path=file,
            known=tables,
        )
    return used, {key: entry[key] for key in ("trigger",) if key in entry}
