"""Chains from files: MoFA's own shape, and a provider kind of the configuration file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.contract import ConfigError, NetworkError, Other, ProviderNotSupported
from mofa_gguf.host import (
    FallbackChain,
    FallbackChainConfig,
    FallbackCondition,
    FallbackTrigger,
    LLMClient,
    LLMConfig,
    ProviderRegistry,
    RetryingProvider,
    load_config,
    load_fallback_chain,
    load_provider,
    register_fallback_chain,
)
from mofa_gguf.host.testing import ScriptedProvider

Write = Callable[[str, str], Path]

YAML = """
name: my-chain
circuit_breaker: {failure_threshold: 2, cooldown_secs: 5}
providers:
  - {provider: down, default_model: m.gguf, trigger: default}
  - provider: echo
    api_key: "${FALLBACK_TEST_KEY}"
    trigger: {conditions: [rate_limited, context_length_exceeded]}
  - {provider: echo, model: models/last.gguf}
"""

TOML = """
name = "my-chain"
circuit_breaker = {failure_threshold = 2, cooldown_secs = 5}

[[providers]]
provider = "down"
default_model = "m.gguf"
trigger = "default"

[[providers]]
provider = "echo"
api_key = "${FALLBACK_TEST_KEY}"
trigger = {conditions = ["rate_limited", "context_length_exceeded"]}

[[providers]]
provider = "echo"
model = "models/last.gguf"
"""

JSON = json.dumps(
    {
        "name": "my-chain",
        "circuit_breaker": {"failure_threshold": 2, "cooldown_secs": 5},
        "providers": [
            {"provider": "down", "default_model": "m.gguf", "trigger": "default"},
            {
                "provider": "echo",
                "api_key": "${FALLBACK_TEST_KEY}",
                "trigger": {"conditions": ["rate_limited", "context_length_exceeded"]},
            },
            {"provider": "echo", "model": "models/last.gguf"},
        ],
    }
)

CONFIG = """
default = "safe"

[providers.local]
provider = "down"
n_ctx = 64

[providers.cloud]
provider = "echo"
api_key = "k"

[providers.safe]
provider = "fallback-chain"
providers = [
    {use = "local", trigger = "any_error"},
    "cloud",
    {provider = "echo", model = "last.gguf"},
]
"""


class Registry(ProviderRegistry):
    """Has the kinds "echo", which repeats, "down", which is not there, and chains."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[LLMConfig] = []
        self.register("echo", lambda config: self._make(config, None))
        self.register("down", lambda config: self._make(config, [NetworkError("down")] * 9))
        register_fallback_chain(self)

    def _make(self, config: LLMConfig, replies: Any) -> ScriptedProvider:
        self.made.append(config)
        return ScriptedProvider(replies)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, text: str) -> Path:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return write_file


class TestOwnFile:
    @pytest.mark.parametrize(
        ("name", "text"), [("c.yaml", YAML), ("c.toml", TOML), ("c.json", JSON)]
    )
    async def test_mofas_shape_is_read_from_every_format(
        self,
        name: str,
        text: str,
        write: Write,
        registry: Registry,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setenv("FALLBACK_TEST_KEY", "secret")
        chain = load_fallback_chain(write(name, text), registry=registry)
        assert (chain.name(), len(chain)) == ("my-chain", 3)
        assert [config.provider for config in registry.made] == ["down", "echo", "echo"]
        assert registry.made[0].options() == {"default_model": "m.gguf"}
        assert registry.made[1].api_key == "secret"
        assert registry.made[2].extra == {"model": "models/last.gguf"}
        assert {config.base_dir for config in registry.made} == {tmp_path}
        async with chain:
            assert await chain.health_check()

    def test_the_tag_of_newer_yaml_writers_is_read(self) -> None:
        config = FallbackChainConfig.from_options(
            {"providers": [{"provider": "a", "trigger": {"conditions": ["timeout"]}}]}
        )
        trigger = FallbackTrigger.on_conditions([FallbackCondition.TIMEOUT])
        assert config.providers[0].fallback_trigger() == trigger

    @pytest.mark.parametrize(
        "list_form", ["[timeout, auth_error]", "\n    - timeout\n    - auth_error"]
    )
    def test_a_yaml_tag_names_the_conditions(
        self, list_form: str, write: Write, registry: Registry
    ) -> None:
        text = (
            f"providers:\n- provider: down\n  trigger: !conditions {list_form}\n- provider: echo\n"
        )
        chain = load_fallback_chain(write("c.yaml", text), registry=registry)
        with LLMClient(chain) as client, pytest.raises(NetworkError):
            client.ask("hi")  # a network error is not among the conditions

    def test_a_written_configuration_is_read_back(self) -> None:
        config = FallbackChainConfig.from_options(
            {
                "circuit_breaker": {},
                "providers": [
                    {"provider": "a", "trigger": {"conditions": ["timeout"]}, "n_ctx": 3},
                    {"provider": "b", "trigger": "never"},
                ],
            }
        )
        assert FallbackChainConfig.from_json(config.to_json()) == config
        assert config.to_dict()["providers"][0] == {
            "provider": "a",
            "trigger": {"conditions": ["timeout"]},
            "n_ctx": 3,
        }

    @pytest.mark.parametrize(
        ("options", "field", "problem"),
        [
            ({}, "providers", "providers: field required"),
            ({"providers": [{}]}, "providers.0.provider", "field required"),
            ({"providers": [{"provider": "a"}], "nam": "x"}, "nam", "extra inputs"),
            (
                {"providers": [{"provider": "a", "trigger": "always"}]},
                "providers.0.trigger",
                "a trigger is one of default, any_error and never, or a table of conditions",
            ),
            (
                {"providers": [{"provider": "a", "trigger": {"conditions": ["time_out"]}}]},
                "providers.0.trigger",
                "unknown condition 'time_out' (did you mean 'timeout'?)",
            ),
            (
                {"providers": [{"provider": "a", "trigger": ["timeout"]}]},
                "providers.0.trigger",
                "a table of conditions alone",
            ),
            (
                {"providers": [{"provider": "a"}], "circuit_breaker": {"threshold": 1}},
                "circuit_breaker.threshold",
                "extra inputs",
            ),
            (
                {"providers": [{"provider": "a"}], "circuit_breaker": {"cooldown_secs": -1}},
                "circuit_breaker.cooldown_secs",
                "greater than or equal to 0",
            ),
        ],
    )
    def test_what_is_wrong_is_named(
        self, options: dict[str, Any], field: str, problem: str, write: Write
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            FallbackChainConfig.from_options(options)
        assert caught.value.field == field
        assert problem in caught.value.message
        file = write("c.json", json.dumps(options))
        with pytest.raises(ConfigError, match=r"c\.json: a fallback chain: ") as caught:
            load_fallback_chain(file)
        assert caught.value.path == file

    def test_no_providers_is_mofas_error(self) -> None:
        with pytest.raises(Other, match="at least one provider is required"):
            FallbackChainConfig.from_options({"providers": []})


class TestKind:
    def test_the_configuration_file_chains_its_own_providers_and_others(
        self, write: Write, registry: Registry, tmp_path: Path
    ) -> None:
        with LLMClient.load(write("mofa.toml", CONFIG), registry=registry) as client:
            assert client.ask("hi") == "hi"
            assert isinstance(client.provider, FallbackChain)
            snapshot = client.provider.metrics()
        assert (len(snapshot.providers), snapshot.fallbacks_total) == (3, 1)
        assert [config.options() for config in registry.made] == [
            {"n_ctx": 64},
            {"api_key": "k"},
            {"model": "last.gguf"},
        ]
        assert {config.base_dir for config in registry.made} == {tmp_path}

    def test_the_kind_comes_with_the_package(self, write: Write) -> None:
        file = write(
            "mofa.toml",
            '[providers.a]\nprovider = "fallback-chain"\n'
            'providers = [{provider = "gguf", model = "no-such.gguf"}]\n',
        )
        provider = load_provider(file)
        assert isinstance(provider, FallbackChain)
        assert [p.name for p in provider.metrics().providers] == ["gguf"]

    def test_a_chain_may_hold_a_chain(self, write: Write, registry: Registry) -> None:
        text = CONFIG.replace('"safe"', '"outer"', 1) + (
            '[providers.outer]\nprovider = "fallback-chain"\nname = "outer"\n'
            'circuit_breaker = {failure_threshold = 1}\nproviders = ["safe", "cloud"]\n'
        )
        chain = load_provider(write("mofa.toml", text), registry=registry)
        assert isinstance(chain, FallbackChain)
        assert [p.name for p in chain.metrics().providers] == ["fallback-chain", "scripted"]

    def test_retries_are_those_of_each_provider_and_of_the_chain(
        self, write: Write, registry: Registry
    ) -> None:
        file = write(
            "mofa.yaml",
            "providers:\n"
            "  a: {provider: echo, max_retries: 2}\n"
            "  b: {provider: fallback-chain, providers: [a, {provider: echo}], max_retries: 1}\n",
        )
        single = load_provider(file, name="a", registry=registry)
        chain = load_provider(file, name="b", registry=registry)
        assert isinstance(single, RetryingProvider)
        assert isinstance(chain, RetryingProvider)
        assert (single.policy.max_attempts, chain.policy.max_attempts) == (3, 2)
        assert isinstance(chain.provider, FallbackChain)
        assert isinstance(chain.provider._slots[0].provider, RetryingProvider)
        assert not isinstance(chain.provider._slots[1].provider, RetryingProvider)

    @pytest.mark.parametrize(
        ("entries", "problem"),
        [
            ('["locale"]', r"there is no provider 'locale' \(did you mean 'local'\?\)"),
            ('[{use = "locale"}]', "there is no provider 'locale'"),
            ('[{use = "local", n_ctx = 3}]', "beside use there may be a trigger only, not n_ctx"),
            ("[3]", r"providers\.bad\.providers\.0 is neither a provider's name nor a table"),
            ('["bad"]', r"the chain holds itself \(bad -> bad\)"),
            ('["around"]', r"the chain holds itself \(around -> bad -> around\)|bad -> around"),
        ],
    )
    def test_a_wrong_entry_is_named_when_the_file_is_read(
        self, entries: str, problem: str, write: Write
    ) -> None:
        text = (
            f'{CONFIG}[providers.bad]\nprovider = "fallback-chain"\nproviders = {entries}\n'
            '[providers.around]\nprovider = "fallback-chain"\nproviders = ["bad"]\n'
        )
        file = write("mofa.toml", text)
        with pytest.raises(ConfigError, match=problem) as caught:
            load_config(file)
        assert caught.value.path == file

    @pytest.mark.parametrize(
        ("table", "problem"),
        [
            ("providers = 3", "providers: input should be a valid list"),
            ('providers = [{provider = "echo"}]\nn_ctx = 3', "n_ctx: extra inputs"),
            ("providers = [{n_ctx = 3}]", "providers.0.provider: field required"),
        ],
    )
    def test_what_else_is_wrong_is_named_when_the_chain_is_made(
        self, table: str, problem: str, write: Write, registry: Registry
    ) -> None:
        file = write("mofa.toml", f'[providers.a]\nprovider = "fallback-chain"\n{table}\n')
        with pytest.raises(ConfigError) as caught:
            load_provider(file, registry=registry)
        assert problem in caught.value.message

    def test_an_unknown_kind_inside_is_refused(self, write: Write, registry: Registry) -> None:
        file = write(
            "mofa.toml",
            '[providers.a]\nprovider = "fallback-chain"\nproviders = [{provider = "ecko"}]\n',
        )
        with pytest.raises(ProviderNotSupported, match="did you mean 'echo'"):
            load_provider(file, registry=registry)
