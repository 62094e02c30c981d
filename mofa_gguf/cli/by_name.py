"""A model chosen by the name that the config file gives it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mofa_gguf.cli.errors import CommandError

if TYPE_CHECKING:
    from mofa_gguf.host import HostConfig, LLMConfig

# The options that say which models there are.
_WHICH_MODEL = ("model", "models", "name")
_NAMES_ONLY = "beside a config file or its provider a model goes by its name there"


def find_by_name(model: str, path: Path | None, provider: str | None) -> LLMConfig | None:
    """The options of the provider that has a model of this name, with only this model.

    None where the text is to be read as a path or a hub id: no config file has the name, and
    neither a file nor a provider of it was asked for. Where several providers have the name, the
    default one goes before the others. Raises CommandError, and ConfigError for a file or a
    provider that was asked for and is wrong.
    """
    from mofa_gguf.contract import ConfigError
    from mofa_gguf.host import find_config, load_config

    asked = path is not None or provider is not None
    try:
        find_config(path)
    except ConfigError as error:
        if path is not None:
            raise
        if asked:
            raise CommandError(f"there is no config file, and {_NAMES_ONLY}") from error
        return None
    try:
        config = load_config(path)
        tables = _tables(config, provider)
    except ConfigError:
        if not asked and _is_a_place(model):
            return None  # the file has no say in it
        raise
    owners = [name for name, options in tables.items() if model in _names(options)]
    if not owners:
        if asked or not _is_a_place(model):
            raise _unknown(model, config.path, tables, asked=asked)
        return None
    if len(owners) > 1 and config.default not in owners:
        raise CommandError(
            f"several providers of {config.path} have a model {model!r}; choose one of them with "
            f"-p: {', '.join(owners)}"
        )
    owner = config.default if config.default in owners else owners[0]
    assert owner is not None
    return _only(model, tables[owner])


def _tables(config: HostConfig, provider: str | None) -> Mapping[str, LLMConfig]:
    return config.providers if provider is None else {provider: config.select(provider)}


def _names(options: LLMConfig) -> list[str]:
    """What a provider's table calls its models."""
    models, name = options.extra.get("models"), options.extra.get("name")
    if isinstance(models, dict) and models:
        return list(models)
    return [name] if isinstance(name, str) else []


def _is_a_place(model: str) -> bool:
    """Whether the text reads as a path or a hub id, or is there, or is the demo."""
    marks = {"/", os.sep, "~"}
    return (
        model == "demo"
        or model.endswith(".gguf")
        or any(mark in model for mark in marks)
        or os.path.exists(model)  # noqa: PTH110 - Path.exists raises for a name too long
    )


def _unknown(
    model: str, file: Path, tables: Mapping[str, LLMConfig], *, asked: bool
) -> CommandError:
    from mofa_gguf.host.names import did_you_mean, listed

    known = [name for options in tables.values() for name in _names(options)]
    hint = did_you_mean(model, known)
    if asked:
        return CommandError(
            f"{model!r} is not the name of a model there{hint}; {file} names {listed(known)}, and "
            f"{_NAMES_ONLY}"
        )
    return CommandError(
        f"{model!r} is neither a model of {file}, which names {listed(known)}, nor a file, a "
        f"folder or a hub id that is there{hint}; give one of these"
    )


def _only(model: str, options: LLMConfig) -> LLMConfig:
    """The same provider with no other model, whatever the environment says."""
    models = options.extra.get("models")
    if not isinstance(models, dict) or not models:
        return options.with_chosen(*_WHICH_MODEL)
    extra: dict[str, Any] = {**options.extra, "model": model, "models": {model: models[model]}}
    if isinstance(extra.get("warm_up"), (list, tuple)):
        extra["warm_up"] = model in extra["warm_up"]
    return options.model_copy(update={"extra": extra}).with_chosen(*_WHICH_MODEL)
