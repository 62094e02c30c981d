"""Fallback chains from configuration, in MoFA's shape.

    name: my-chain                                     # default: fallback-chain
    circuit_breaker: {failure_threshold: 3, cooldown_secs: 30}
    providers:                                         # LLMConfig keys, and when to go on
      - {provider: gguf, model: m.gguf}                # trigger: default
      - {provider: openai, api_key: "${KEY}", trigger: any_error}
      - {provider: ollama, trigger: {conditions: [timeout, network_error]}}

It is a file of its own (``load_fallback_chain``), or a provider of the kind "fallback-chain" in a
configuration file, where an entry may also be another provider's name, or ``{use = "name",
trigger = ...}``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, ValidationError, field_validator

from mofa_gguf.contract.base import ContractModel, explain_validation
from mofa_gguf.contract.errors import ConfigError, Other
from mofa_gguf.host.config import find_config
from mofa_gguf.host.config_chains import CHAIN_KIND
from mofa_gguf.host.config_files import interpolate, read_table
from mofa_gguf.host.fallback import DEFAULT_NAME, FallbackChain
from mofa_gguf.host.fallback_policy import (
    CircuitBreakerConfig,
    FallbackCondition,
    FallbackTrigger,
)
from mofa_gguf.host.fallback_slots import FallbackSlot
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.loading import create_provider
from mofa_gguf.host.names import did_you_mean, listed
from mofa_gguf.host.registry import ProviderRegistry

_TRIGGERS = {
    "default": FallbackTrigger.default_conditions(),
    "any_error": FallbackTrigger.any_error(),
    "never": FallbackTrigger.never(),
}
# Keys of a provider's table that the host acts upon, not the chain.
_OF_THE_HOST = frozenset({"max_retries"})


class FallbackConditions(ContractModel):
    """A trigger that names its conditions."""

    model_config = ConfigDict(extra="forbid")

    conditions: list[FallbackCondition]


class FallbackProviderConfig(LLMConfig):
    """One provider of a chain: MoFA's ``LLMConfig`` keys and a trigger beside them."""

    trigger: Literal["default", "any_error", "never"] | FallbackConditions = "default"

    @field_validator("trigger", mode="before")
    @classmethod
    def _check_trigger(cls, value: Any) -> Any:
        if isinstance(value, FallbackConditions) or (isinstance(value, str) and value in _TRIGGERS):
            return value
        named = value.get("conditions") if isinstance(value, Mapping) else None
        if not isinstance(named, list) or len(value) > 1:
            raise ValueError(
                f"a trigger is one of {listed(_TRIGGERS)}, or a table of conditions alone, "
                f"which is a list, not {value!r}"
            )
        known = [condition.value for condition in FallbackCondition]
        for name in named:
            if name not in known:
                hint = did_you_mean(str(name), known)
                raise ValueError(f"unknown condition {name!r}{hint}; known: {listed(known)}")
        return value

    def fallback_trigger(self) -> FallbackTrigger:
        """The trigger as a chain takes it."""
        if isinstance(self.trigger, FallbackConditions):
            return FallbackTrigger.on_conditions(self.trigger.conditions)
        return _TRIGGERS[self.trigger]

    def llm(self, base_dir: Path | None) -> LLMConfig:
        """The provider's own configuration."""
        given = {name: getattr(self, name) for name in self.given() - {"trigger", "base_dir"}}
        return LLMConfig(**given).model_copy(update={"base_dir": base_dir})


class FallbackChainConfig(ContractModel):
    """A chain's name, circuit breaker and providers."""

    model_config = ConfigDict(extra="forbid")

    name: str = DEFAULT_NAME
    circuit_breaker: CircuitBreakerConfig | None = None
    providers: list[FallbackProviderConfig]

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> FallbackChainConfig:
        """Read a chain's keys.

        Raises:
            ConfigError: a key is unknown, missing or holds the wrong thing (``field`` names it).
            Other: there is no provider.
        """
        try:
            config = cls.model_validate(options)
        except ValidationError as error:
            field, problem = explain_validation(error)
            raise ConfigError(f"a fallback chain: {problem}", field=field) from error
        if not config.providers:
            raise Other(f"FallbackChain({config.name}): at least one provider is required")
        return config

    def build(self, registry: ProviderRegistry, *, base_dir: Path | None = None) -> FallbackChain:
        """Make the chain with its providers. Raises whatever making a provider raises."""
        slots = [
            FallbackSlot(create_provider(registry, slot.llm(base_dir)), slot.fallback_trigger())
            for slot in self.providers
        ]
        return FallbackChain(slots, name=self.name, circuit_breaker=self.circuit_breaker)


def register_fallback_chain(registry: ProviderRegistry) -> None:
    """Offer the kind "fallback-chain", whose providers come from the same registry."""

    def make_chain(config: LLMConfig) -> FallbackChain:
        options = {k: v for k, v in config.options().items() if k not in _OF_THE_HOST}
        return FallbackChainConfig.from_options(options).build(registry, base_dir=config.base_dir)

    registry.register(
        CHAIN_KIND,
        make_chain,
        description="several providers, each asked when those before it fail",
    )


def load_fallback_chain(
    path: Path | str, *, registry: ProviderRegistry | None = None
) -> FallbackChain:
    """Make the chain that a file of its own describes, in YAML, TOML or JSON.

    Args:
        path: the file; relative paths in it start at its folder.
        registry: the kinds to choose from; without one those of the installed plugins.

    Raises:
        ConfigError: the file is missing or wrong, or a provider refused its options.
        LLMError: whatever else making the providers raises.
    """
    file = find_config(path).absolute()
    table = interpolate(read_table(file), os.environ)
    try:
        config = FallbackChainConfig.from_options(table)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}", field=error.field, path=file) from error
    return config.build(registry or ProviderRegistry().discover(), base_dir=file.parent)
