"""An agent's options, from its node's ``env`` in the dataflow.

Which model it asks is not said here: see ``providers``. An unknown ``MOFA_AGENT_...`` name is an
error, so that a misspelt one is seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mofa_gguf.contract import ConfigError

PREFIX = "MOFA_AGENT_"


class AgentSettings(BaseModel):
    """Options of one agent; each is ``MOFA_AGENT_<NAME>`` in the environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str | None = None
    """The system prompt."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)
    """More fields of every request, as a JSON object: ``{"top_k": 20}``."""
    response_format: dict[str, Any] | None = None
    """A JSON Schema that every answer obeys: the schema, or the path of a file with it."""
    tools: tuple[str, ...] = ()
    """Functions the model may call: ``file.py:name`` or ``package.module:name``, by spaces."""
    max_tool_rounds: int = Field(default=10, ge=0)
    session: str | None = None
    """The conversation of queries that name none; without it they stand alone."""
    memory_turns: int | None = Field(default=None, ge=1)
    """The most turns of a conversation that the model sees; by default what its context holds."""
    max_sessions: int = Field(default=256, ge=1)
    """Conversations remembered; the one that was silent for longest is forgotten first."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Seconds that a provider node may be silent. One that works says so every few seconds,
    however long an answer takes."""
    retries: int = Field(default=0, ge=0, le=10)
    """How often a failed request is sent again, where that may help."""

    @field_validator("tools", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(value.split()) if isinstance(value, str) else value

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None, base_dir: Path | None = None
    ) -> AgentSettings:
        """The options of an environment; paths start at ``base_dir``, else the working folder.

        Raises:
            ConfigError: an option is unknown or wrong.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {
            name[len(PREFIX) :].lower(): value
            for name, value in environ.items()
            if name.startswith(PREFIX) and value != ""
        }
        if "options" in values:
            values["options"] = _json(values["options"], f"{PREFIX}OPTIONS", "its text")
        if "response_format" in values:
            values["response_format"] = _schema(values["response_format"], base_dir or Path.cwd())
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _config_error(error) from error

    def request_options(self) -> dict[str, Any]:
        """What goes into every request."""
        options = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "response_format": self.response_format,
        }
        return {**self.options, **{key: v for key, v in options.items() if v is not None}}


def is_dataflow_end(environ: Mapping[str, str] | None = None) -> bool | str:
    """``dataflow_status`` of results: true, or what ``IS_DATAFLOW_END`` says, as in mofa-core."""
    said = (os.environ if environ is None else environ).get("IS_DATAFLOW_END")
    return True if said in (None, "true", "True") else str(said)


def _schema(text: str, base_dir: Path) -> Any:
    variable = f"{PREFIX}RESPONSE_FORMAT"
    source = "its text"
    if not text.lstrip().startswith("{"):
        path = base_dir / text
        source = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{variable}: {path} cannot be read ({error}); give a JSON Schema or a file",
                field=variable,
                path=path,
            ) from error
    return _json(text, variable, source)


def _json(text: str, variable: str, source: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{variable}: {source} is not JSON ({error})", field=variable) from error


def _config_error(error: ValidationError) -> ConfigError:
    problem = min(
        error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"
    )
    name = PREFIX + str(problem["loc"][0]).upper()
    known = [PREFIX + field.upper() for field in AgentSettings.model_fields]
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        message = f"there is no option {name}; {hint}known are {', '.join(known)}"
    else:
        message = f"{name} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
    return ConfigError(message, field=name, known=known)
