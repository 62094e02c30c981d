"""Which chat template a model's conversations are written with, told without loading the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mofa_gguf.contract import ConfigError

if TYPE_CHECKING:
    from mofa_gguf.settings import GGUFConfig

TEMPLATE_KEY = "tokenizer.chat_template"
NO_TEMPLATE = (
    "it has no chat template, so conversations are written as ChatML; if it was trained on another "
    "form, give that in chat_template"
)


def template_source(config: GGUFConfig, metadata: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Jinja source from the config or the file; a file may hold several templates by name."""
    given = given_template(config)
    if given is not None:
        return given
    found = {
        key.removeprefix(TEMPLATE_KEY).removeprefix(".") or "default": value
        for key, value in metadata.items()
        if (key == TEMPLATE_KEY or key.startswith(f"{TEMPLATE_KEY}.")) and isinstance(value, str)
    }
    return found or None


def given_template(config: GGUFConfig) -> str | None:
    """The config's own template, read from its file if need be. Raises ConfigError."""
    given = config.chat_template
    if given is None or "{" in given or "\n" in given:
        return given
    path = Path(os.path.expanduser(given))
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the chat template {given} cannot be read ({error.strerror}); "
            "give a readable file or the template itself",
            field="chat_template",
            path=path,
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the chat template {given} is no UTF-8 text (byte {error.start})",
            field="chat_template",
            path=path,
        ) from error
