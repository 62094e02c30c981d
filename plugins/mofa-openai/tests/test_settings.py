"""Options: where they come from, and what wrong ones get."""

from __future__ import annotations

from typing import Any

import pytest
from mofa_openai import OpenAIConfig, OpenAIProvider, plugin
from mofa_openai.neighbours import NEIGHBOURS

from mofa_gguf import AuthError, ChatCompletionRequest, ConfigError
from mofa_gguf.host import LLMConfig, ProviderRegistry


def settings(environ: dict[str, str] | None = None, **options: Any) -> OpenAIConfig:
    return OpenAIConfig.from_llm_config(LLMConfig(**options), environ or {})


def test_every_neighbour_is_a_kind_of_the_installed_plugin() -> None:
    registry = ProviderRegistry().discover()
    kinds = {entry.kind: entry for entry in registry.kinds()}
    assert set(NEIGHBOURS) <= set(kinds)
    assert {kinds[kind].distribution for kind in NEIGHBOURS} == {"mofa-openai"}
    assert registry.problems == ()


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("openai", "https://api.openai.com/v1"),
        ("ollama", "http://localhost:11434/v1"),
        ("lmstudio", "http://localhost:1234/v1"),
        ("lm-studio", "http://localhost:1234/v1"),
        ("vllm", "http://localhost:8000/v1"),
        ("llama-server", "http://localhost:8080/v1"),
    ],
)
def test_a_neighbour_is_where_it_usually_is(kind: str, url: str) -> None:
    assert settings(provider=kind).base_url == url


def test_mofas_own_constructors_work() -> None:
    ollama = OpenAIConfig.from_llm_config(LLMConfig.ollama("llama3"), {})
    assert (ollama.kind, ollama.base_url, ollama.model) == (
        "ollama",
        "http://localhost:11434/v1",
        "llama3",
    )
    other = LLMConfig.openai_compatible("http://host:1/api", "key", "m")
    assert OpenAIConfig.from_llm_config(other, {}).base_url == "http://host:1/api"


def test_the_environment_fills_in_and_the_configuration_goes_before_it() -> None:
    environ = {
        "OPENAI_API_KEY": "sk-env",
        "OPENAI_BASE_URL": "http://proxy/v1",
        "OPENAI_MODEL": "gpt-env",
    }
    config = settings(environ, provider="openai")
    assert config.api_key is not None
    assert config.api_key.get_secret_value() == "sk-env"
    assert (config.base_url, config.model) == ("http://proxy/v1", "gpt-env")
    given = settings(environ, provider="openai", api_key="sk-mine", default_model="gpt-mine")
    assert given.api_key is not None
    assert (given.api_key.get_secret_value(), given.model) == ("sk-mine", "gpt-mine")


def test_a_local_server_is_not_given_openais_key() -> None:
    assert settings({"OPENAI_API_KEY": "sk-env"}, provider="vllm").api_key is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"provider": "openai-compatible"}, "base_url"),
        ({"provider": "vllm", "base_url": "not an address"}, "base_url"),
        ({"provider": "vllm", "base_url": "${NOWHERE}"}, "base_url"),
        ({"provider": "vllm", "base_url": "ftp://host/v1"}, "base_url"),
        ({"provider": "vllm", "temprature": 1}, "temprature"),
        ({"provider": "vllm", "timeout_secs": 0}, "timeout_s"),
        ({"provider": "vllm", "default_temperature": 9.0}, "default_temperature"),
        ({"provider": "vllm", "vision": "often"}, "vision"),
        ({"provider": "vllm", "kind": "openai"}, "kind"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field.split("_")[0]) as raised:
        plugin.make_provider(LLMConfig(**options))
    assert raised.value.field == field


def test_a_misspelt_option_is_answered_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'base_url'"):
        settings(provider="vllm", bas_url="http://x/v1")


def test_a_wrong_option_does_not_show_its_neighbours_secret() -> None:
    with pytest.raises(ConfigError) as raised:
        settings(provider="vllm", api_key="sk-secret", headers="sk-secret")
    assert "sk-secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["${NO_SUCH_KEY}", "$NO_SUCH_KEY"])
async def test_a_key_that_the_environment_lacks_fails_the_request_not_the_chain(key: str) -> None:
    async with OpenAIProvider(settings(provider="openai", api_key=key, model="m")) as provider:
        with pytest.raises(AuthError, match="NO_SUCH_KEY"):
            await provider.chat(ChatCompletionRequest.new().user_message("Hi"))


async def test_a_missing_key_says_which_variable_to_set() -> None:
    async with OpenAIProvider(settings(provider="openai", model="m")) as provider:
        with pytest.raises(AuthError, match="OPENAI_API_KEY"):
            await provider.chat(ChatCompletionRequest.new().user_message("Hi"))


def test_finding_the_plugin_does_not_load_the_client() -> None:
    import subprocess
    import sys

    program = "import sys, mofa_openai.plugin; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
