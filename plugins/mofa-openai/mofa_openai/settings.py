"""Every option of an OpenAI provider, from a caller or a configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from mofa_gguf.contract import ConfigError
from mofa_gguf.host import LLMConfig
from mofa_openai.neighbours import Neighbour, neighbour_of

# MoFA's LLMConfig keys that mean one of ours.
_MOFA_NAMES = {"default_model": "model", "timeout_secs": "timeout_s", "org_id": "organization"}
# MoFA's LLMConfig keys that its client, not a provider, acts on.
_NOT_OURS = frozenset({"max_retries"})
# What the host leaves in place of a variable that is not set.
_UNRESOLVED = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class OpenAIConfig(BaseModel):
    """Options of one :class:`~mofa_openai.OpenAIProvider`.

    Raises ConfigError for an unknown option or a value out of range.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), hide_input_in_errors=True
    )

    kind: str = "openai-compatible"
    """What the provider calls itself."""
    base_url: str
    """Where the API begins, such as ``http://localhost:8000/v1``."""
    api_key: SecretStr | None = None
    key_missing: str | None = None
    """Why there is no key where one is needed: what requests get as an AuthError."""
    organization: str | None = None
    project: str | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    """More headers of every request."""

    model: str = ""
    """What a request without a model asks for; empty: the server's only one."""
    embedding_model: str | None = None
    """The same for embeddings; by default ``model``."""
    default_temperature: float | None = Field(default=None, ge=0, le=2)
    """Where a request names none; else the server's own."""
    default_max_tokens: int | None = Field(default=None, ge=1)
    """Where a request names none; else the server's own."""
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the API calls the limit of an answer; OpenAI's reasoning models take the second only."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for a whole answer, or until the next piece of a streamed one."""
    stream_usage: bool = True
    """Ask for the token counts of streamed answers; False for servers that refuse the option."""

    tools: bool = True
    """Whether the model can call tools."""
    vision: bool = True
    """Whether messages may have images."""
    embeddings: bool = True
    """Whether the server embeds."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise _config_error(error) from None
        _check_url(self.base_url)

    @classmethod
    def from_llm_config(
        cls, config: LLMConfig, environ: Mapping[str, str] | None = None
    ) -> OpenAIConfig:
        """Options of a configuration; the environment fills in what its kind has variables for.

        Raises:
            ConfigError: an option is unknown or wrong, or the address is missing.
        """
        environ = os.environ if environ is None else environ
        neighbour = neighbour_of(config.provider)
        values: dict[str, Any] = {"kind": neighbour.kind}
        for key, value in config.options().items():
            if key in ("kind", "key_missing"):
                raise _unknown_option(key)
            if key not in _NOT_OURS:
                values.setdefault(_MOFA_NAMES.get(key, key), value)
        _fill(values, "base_url", environ, neighbour.url_variable, neighbour.base_url)
        _fill(values, "model", environ, neighbour.model_variable, "")
        if values["base_url"] is None:
            raise ConfigError(
                f"base_url is missing: say where the {neighbour.kind} server is, as in base_url = "
                '"http://localhost:8000/v1"',
                field="base_url",
            )
        values["base_url"] = _with_v1(values["base_url"], neighbour)
        return cls(**{**values, **_key_of(values.get("api_key"), environ, neighbour)})


def _fill(
    values: dict[str, Any],
    key: str,
    environ: Mapping[str, str],
    variable: str | None,
    otherwise: str | None,
) -> None:
    if values.get(key) is None:
        values[key] = (environ.get(variable) if variable else None) or otherwise


def _key_of(given: Any, environ: Mapping[str, str], neighbour: Neighbour) -> dict[str, Any]:
    """The key, or why there is none: a chain whose last resort lacks its key must still work."""
    variable = neighbour.key_variable
    unresolved = _UNRESOLVED.fullmatch(given) if isinstance(given, str) else None
    if unresolved:
        name = unresolved.group(1) or unresolved.group(2)
        return {
            "api_key": None,
            "key_missing": f"the environment has no {name}, which api_key refers to; set it",
        }
    if given:
        return {"api_key": given}
    if variable and environ.get(variable):
        return {"api_key": environ[variable]}
    if neighbour.needs_key:
        hint = f"set {variable}, or " if variable else ""
        return {
            "api_key": None,
            "key_missing": f"there is no API key; {hint}api_key in the configuration",
        }
    return {"api_key": None}


def _with_v1(url: Any, neighbour: Neighbour) -> Any:
    if isinstance(url, str) and neighbour.adds_v1 and urlsplit(url).path in ("", "/"):
        return url.rstrip("/") + "/v1"
    return url


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ConfigError(
            f"base_url = {url!r} is no address; give one such as http://localhost:8000/v1",
            field="base_url",
        )


def _known() -> list[str]:
    return sorted(set(OpenAIConfig.model_fields) - {"kind", "key_missing"})


def _unknown_option(field: str) -> ConfigError:
    close = get_close_matches(field, _known(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return ConfigError(
        f"there is no option {field!r} for an OpenAI provider; {hint}known are "
        f"{', '.join(_known())}",
        field=field,
        known=_known(),
    )


def _config_error(error: ValidationError) -> ConfigError:
    """The first problem of a validation, as one sentence without the value: it may be a key."""
    problems = error.errors(include_url=False, include_input=False)
    # A misspelt option is the cause where another is missing, so it is told first.
    problem = min(problems, key=lambda each: each["type"] != "extra_forbidden")
    field = str(problem["loc"][0]) if problem["loc"] else "options"
    if problem["type"] == "extra_forbidden":
        return _unknown_option(field)
    place = ".".join(map(str, problem["loc"]))
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return ConfigError(f"{place}: {message}", field=field, known=_known())
