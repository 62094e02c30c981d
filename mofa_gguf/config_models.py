"""Several models in one configuration: the table of each, and what must agree with their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mofa_gguf.contract import ConfigError

# Options of the provider, which a single model among several cannot have.
_OF_THE_PROVIDER = frozenset({"models", "name", "memory_budget", "memory_wait_s"})


def with_tables(values: Any) -> Any:
    """The options, where text in ``models`` is a table with that model; the first is the default.

    What is no options, or has no models, is given back as it is.
    """
    models = values.get("models") if isinstance(values, dict) else None
    if not isinstance(models, dict) or not models:
        return values
    tables = {
        name: {"model": table} if isinstance(table, str) else table
        for name, table in models.items()
    }
    return {"model": next(iter(tables)), **values, "models": tables}


def heard_of_chosen(heard: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What the environment says; of its ``warm_up`` only names of models that are ``chosen``."""
    names, models = heard.get("warm_up"), chosen.get("models") or ()
    if not isinstance(names, list):
        return dict(heard)
    return {**heard, "warm_up": [name for name in names if name in models]}


def check_tables(
    models: Mapping[str, Mapping[str, Any]], *, default: str, warm_up: bool | tuple[str, ...]
) -> None:
    """What each table must have and cannot have, and whether the models that are named exist.

    ``default``: the name of the one that requests without a model get. Raises ConfigError.
    """
    known = tuple(models)
    for name, table in models.items():
        wrong = sorted(_OF_THE_PROVIDER.intersection(table))
        if not name or wrong:
            problem = f"{wrong[0]} is an option of the provider" if wrong else "has no name"
            raise ConfigError(f"models.{name}: {problem}", field=f"models.{name}")
        if not table.get("model"):
            raise ConfigError(
                f"models.{name}: the option 'model' is missing", field=f"models.{name}.model"
            )
    named = {"model": (default,), "warm_up": warm_up}
    for field, names in named.items():
        unknown = [] if isinstance(names, bool) else [n for n in names if n not in known]
        if unknown:
            raise ConfigError(
                f"{field} = {unknown[0]!r}: there is no such model among models; "
                f"known are {', '.join(known)}",
                field=field,
                known=known,
            )
