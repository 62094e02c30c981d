"""What a provider is made from: MoFA's ``LLMConfig``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, PrivateAttr

from mofa_gguf.contract.base import F32, U32, U64, FlattenedModel, JsonObject
from mofa_gguf.contract.errors import SerializationError

ConfigT = TypeVar("ConfigT", bound="LLMConfig")

_HOST_FIELDS = frozenset({"provider", "extra", "base_dir"})


class LLMConfig(FlattenedModel):
    """Which kind of provider, and its options; options MoFA has no key for live in ``extra``.

    The defaults are MoFA's (temperature 0.7, 4096 tokens, 60 s, 3 retries), but a default is not
    the user's word: where a key was not given, a model's own sampling defaults go first. So
    ``options`` and the written JSON hold the keys that were given, and only those.

    ``base_dir`` is the folder that relative paths among the options start from. The host sets it
    (to a config file's folder); it is never read from JSON nor written.

    ``chosen`` names the options that somebody chose by hand, such as on a command line: an
    environment variable that would replace one has no say. It is set with ``with_chosen`` alone.
    """

    provider: str
    api_key: str | None = Field(default=None, repr=False)
    base_url: str | None = None
    default_model: str | None = None
    default_temperature: F32 | None = 0.7
    default_max_tokens: U32 | None = 4096
    timeout_secs: U64 | None = 60
    max_retries: U32 | None = 3
    base_dir: Path | None = Field(default=None, exclude=True)
    _chosen: frozenset[str] = PrivateAttr(default=frozenset())

    @classmethod
    def from_dict(cls: type[ConfigT], data: Mapping[str, Any]) -> ConfigT:
        """Read a decoded JSON object; see ``ContractModel.from_dict``."""
        if isinstance(data, Mapping) and "base_dir" in data:
            raise SerializationError("an LLMConfig's base_dir is set by the host, not in JSON")
        return super().from_dict(data)

    def options(self) -> JsonObject:
        """The options that were given, ``extra`` among them; without ``provider`` and None."""
        given = self.given()
        options = {name: getattr(self, name) for name in sorted(given - _HOST_FIELDS)}
        return {**{key: value for key, value in options.items() if value is not None}, **self.extra}

    def given(self) -> frozenset[str]:
        """The names of the fields that were given, not defaulted."""
        return frozenset(self.model_fields_set)

    @property
    def chosen(self) -> frozenset[str]:
        """The names of the options that were chosen by hand."""
        return self._chosen

    def with_chosen(self, *names: str) -> LLMConfig:
        """A copy whose options of these names, or their absence, were chosen by hand."""
        copy = self.model_copy()
        copy._chosen = self._chosen.union(names)
        return copy

    def _finish_writing(self, written: JsonObject) -> JsonObject:
        given = self.given() | {"provider", "extra"}
        return super()._finish_writing({key: written[key] for key in written if key in given})

    @classmethod
    def openai(cls, api_key: str) -> LLMConfig:
        """OpenAI's API."""
        return cls(
            provider="openai",
            api_key=api_key,
            base_url="https://api.openai.com/v1",
            default_model="gpt-4",
        )

    @classmethod
    def anthropic(cls, api_key: str) -> LLMConfig:
        """Anthropic's API."""
        return cls(
            provider="anthropic",
            api_key=api_key,
            base_url="https://api.anthropic.com",
            default_model="claude-3-sonnet-20240229",
        )

    @classmethod
    def ollama(cls, model: str) -> LLMConfig:
        """An Ollama server on this machine."""
        return cls(provider="ollama", base_url="http://localhost:11434", default_model=model)

    @classmethod
    def openai_compatible(cls, base_url: str, api_key: str, model: str) -> LLMConfig:
        """Any server that speaks OpenAI's API."""
        return cls(
            provider="openai-compatible", api_key=api_key, base_url=base_url, default_model=model
        )

    @classmethod
    def gguf(cls, model: str) -> LLMConfig:
        """A model in this process: a .gguf path, a checkpoint folder or a hub id."""
        return cls(provider="gguf", extra={"model": model})

    def model(self, model: str) -> LLMConfig:
        """A copy with this default model."""
        return self.model_copy(update={"default_model": model})

    def temperature(self, temperature: float) -> LLMConfig:
        """A copy with this default temperature."""
        return self.model_copy(update={"default_temperature": temperature})

    def max_tokens(self, max_tokens: int) -> LLMConfig:
        """A copy with this default for the most tokens of an answer."""
        return self.model_copy(update={"default_max_tokens": max_tokens})
