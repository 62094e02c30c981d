"""Which provider to use: the configuration file, where it is looked for and what it may say.

    default = "local"              # which provider when none is named; needed only with several

    [providers.local]              # any number of them
    provider = "gguf"              # the kind; everything else is up to the kind
    model = "models/tiny.gguf"     # relative paths start at this file's folder
    api_key = "${SOME_KEY}"        # from the environment

    [providers.safe]               # tried in order: see fallback_config
    provider = "fallback-chain"
    providers = ["local", {use = "cloud", trigger = "any_error"}, {provider = "ollama"}]

The same in ``mofa.yaml``, ``mofa.yml`` or ``mofa.json``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mofa_gguf.contract.base import explain_validation
from mofa_gguf.contract.errors import ConfigError
from mofa_gguf.host.config_chains import expand_chains
from mofa_gguf.host.config_files import interpolate, read_table
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.names import did_you_mean, listed

log = logging.getLogger(__name__)

CONFIG_VARIABLE = "MOFA_CONFIG"
"""The environment variable that names a configuration file."""

FILE_NAMES = ("mofa.toml", "mofa.yaml", "mofa.yml", "mofa.json")
"""The names looked for in a folder, in this order."""


class _ConfigFile(BaseModel):
    """The keys a configuration file has."""

    model_config = ConfigDict(extra="forbid")

    default: str | None = None
    providers: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class HostConfig:
    """A configuration file's providers by name, and the name of the default one."""

    path: Path
    providers: Mapping[str, LLMConfig]
    default: str | None = None

    def select(self, name: str | None = None) -> LLMConfig:
        """The provider of this name, or the default: the one ``default`` names, or the only one.

        Raises:
            ConfigError: no provider has the name, or none is named and there are several.
        """
        if name is None:
            name = self.default
        if name is None and len(self.providers) == 1:
            return next(iter(self.providers.values()))
        known = list(self.providers)
        if name is None:
            raise ConfigError(
                f"{self.path}: says nothing of which provider is the default; there are "
                f"{listed(known)}: add for example default = {known[0]!r}",
                field="default",
                path=self.path,
                known=known,
            )
        if name not in self.providers:
            raise _unknown_provider(self.path, name, known, field=None)
        return self.providers[name]


def find_config(path: Path | str | None = None) -> Path:
    """The configuration file to use.

    It is, in this order: ``path``; the file that ``MOFA_CONFIG`` names; ``mofa.toml``,
    ``mofa.yaml``, ``mofa.yml`` or ``mofa.json`` in the working folder; the same in the user's
    configuration folder (``~/.config/mofa`` on Linux).

    Raises:
        ConfigError: the file named explicitly is missing, or there is none anywhere.
    """
    if path is not None:
        return _existing(Path(os.path.expanduser(path)), "")
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return _existing(Path(os.path.expanduser(named)), f" ({CONFIG_VARIABLE} names it)")
    folders = [Path.cwd(), _user_folder()]
    for folder in folders:
        found = [folder / name for name in FILE_NAMES if (folder / name).is_file()]
        if len(found) > 1:
            log.warning("using %s; %s beside it is ignored", found[0], found[1].name)
        if found:
            return found[0]
    raise ConfigError(
        f"there is no configuration file: {CONFIG_VARIABLE} is not set, and neither "
        f"{folders[0]} nor {folders[1]} has one of {', '.join(FILE_NAMES)}; "
        "write one, or name a model or a file explicitly",
        known=FILE_NAMES,
    )


def load_config(path: Path | str | None = None) -> HostConfig:
    """Read the configuration file that ``find_config`` finds.

    Raises:
        ConfigError: there is none, it is malformed, or it says something unknown; the sentence
            begins with the file's path, and ``path`` and ``field`` are set where they apply.
    """
    file = find_config(path).absolute()
    table = interpolate(read_table(file), os.environ)
    try:
        content = _ConfigFile.model_validate(table)
    except ValidationError as error:
        raise _wrong_shape(file, error) from error
    tables = expand_chains(file, content.providers)
    providers = {name: _read_provider(file, name, table) for name, table in tables.items()}
    if not providers:
        raise ConfigError(
            f"{file}: names no provider; add a table such as [providers.local] with "
            'provider = "gguf" and its options',
            field="providers",
            path=file,
        )
    if content.default is not None and content.default not in providers:
        raise _unknown_provider(file, content.default, list(providers), field="default")
    return HostConfig(file, providers, content.default)


def _read_provider(file: Path, name: str, options: dict[str, Any]) -> LLMConfig:
    place = f"providers.{name}"
    if "provider" not in options:
        close = get_close_matches("provider", options, n=1)
        hint = f"is {close[0]!r} a misspelling of it?" if close else 'add provider = "gguf" or so'
        raise ConfigError(
            f"{file}: {place} has no key provider that says which kind it is; {hint}",
            field=f"{place}.provider",
            path=file,
        )
    if "base_dir" in options:
        raise ConfigError(
            f"{file}: {place}.base_dir cannot be set; relative paths start at the file's folder",
            field=f"{place}.base_dir",
            path=file,
        )
    try:
        config = LLMConfig.model_validate(options)
    except ValidationError as error:
        field, problem = explain_validation(error)
        raise ConfigError(
            f"{file}: {place}.{problem}",
            field=f"{place}.{field}" if field else place,
            path=file,
        ) from error
    return config.model_copy(update={"base_dir": file.parent})


def _wrong_shape(file: Path, error: ValidationError) -> ConfigError:
    known = list(_ConfigFile.model_fields)
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            key = str(detail["loc"][0])
            return ConfigError(
                f"{file}: unknown key {key!r}{did_you_mean(key, known)}; known keys: "
                f"{listed(known)} (a provider's options belong in its [providers.NAME] table)",
                field=key,
                path=file,
                known=known,
            )
    field, problem = explain_validation(error)
    return ConfigError(f"{file}: {problem}", field=field, path=file)


def _unknown_provider(file: Path, name: str, known: list[str], *, field: str | None) -> ConfigError:
    subject = f"default names {name!r}, but there" if field == "default" else "there"
    return ConfigError(
        f"{file}: {subject} is no provider {name!r}{did_you_mean(name, known)}; "
        f"the file has {listed(known)}",
        field=field,
        path=file,
        known=known,
    )


def _existing(path: Path, origin: str) -> Path:
    if path.is_dir():
        raise ConfigError(f"{path}{origin}: is a folder; name the file in it", path=path)
    if not path.exists():
        raise ConfigError(f"{path}{origin}: there is no such configuration file", path=path)
    return path


def _user_folder() -> Path:
    from platformdirs import user_config_path

    return user_config_path("mofa", appauthor=False)
