"""The same agent on a model in process, on a server, and on chains of both: the file decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import RealServer
from scripted_server import Reply, ScriptedServer, refusal

from mofa_gguf import LLMClient, LLMError, LLMProvider, load_provider
from mofa_gguf.host import FallbackChain

Write = Callable[[str], Path]

CONFIG = """
default = "{default}"

[providers.local]
provider = "gguf"
model = "{model}"
n_threads = 1
n_ctx = 256

[providers.server]
provider = "llama-server"
base_url = "{real_url}"
api_key = "${{AGENTS_TEST_KEY}}"

[providers.remote]
provider = "openai-compatible"
base_url = "{scripted_url}"
api_key = "sk-remote"
default_model = "big"
timeout_secs = 1

[providers.unreachable]
provider = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
default_model = "big"

[providers.keyless]
provider = "openai"
api_key = "${{AGENTS_TEST_NO_SUCH_KEY}}"
default_model = "big"

[providers.remote-first]
provider = "fallback-chain"
providers = [{{ use = "{first}", trigger = {trigger} }}, "local"]

[providers.local-first]
provider = "fallback-chain"
providers = [{{ use = "small", trigger = {trigger} }}, "server"]

[providers.small]
provider = "gguf"
n_threads = 1
{small}
"""


def agent(provider: LLMProvider) -> tuple[str, str]:
    """All that an agent does, whatever is behind the provider."""
    with LLMClient(provider) as client:
        whole = client.ask("What is MoFA?", temperature=0)
        streamed = "".join(client.ask_stream("What is MoFA?", temperature=0))
    return whole, streamed


@pytest.fixture
def write(
    tmp_path: Path,
    demo_model: Path,
    real_server: RealServer,
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Path]:
    """The file above, with what a test wants of it."""
    monkeypatch.setenv("AGENTS_TEST_KEY", real_server.api_key)

    def write(
        default: str,
        *,
        first: str = "remote",
        trigger: str = '"default"',
        small: str = 'model = "{model}"\nn_ctx = 16',
    ) -> Path:
        file = tmp_path / "mofa.toml"
        file.write_text(
            CONFIG.format(
                default=default,
                first=first,
                trigger=trigger,
                small=small.format(model=demo_model),
                model=demo_model,
                real_url=real_server.base_url,
                scripted_url=server.base_url,
            )
        )
        return file

    return write


@pytest.mark.parametrize("name", ["local", "server"])
def test_one_provider_answers(name: str, write: Callable[..., Path]) -> None:
    whole, streamed = agent(load_provider(write(name)))
    assert whole == streamed
    assert "framework" in whole


FAILURES: dict[str, tuple[str, Reply | None]] = {
    "rate_limited": ("remote", refusal(429, "slow down", code="rate_limit_exceeded")),
    "quota_exceeded": ("remote", refusal(429, "no money", code="insufficient_quota")),
    "network_error": ("unreachable", None),
    "timeout": ("remote", Reply(("",), stalls=True)),
    "auth_error": ("remote", refusal(401, "wrong key", code="invalid_api_key")),
    "auth_error, no key": ("keyless", None),
    "provider_unavailable": ("remote", refusal(501, "not offered")),
    "context_length_exceeded": ("remote", refusal(400, "too long", code="context_length_exceeded")),
    "model_not_found": ("remote", refusal(404, "no such model", code="model_not_found")),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_chain_goes_on_when_the_first_fails_as_the_condition_says(
    case: str, write: Callable[..., Path], server: ScriptedServer
) -> None:
    first, reply = FAILURES[case]
    if reply is not None:
        server.says(reply)
    condition = case.split(",")[0]
    trigger = f"{{ conditions = [{json.dumps(condition)}] }}"
    chain = load_provider(write("remote-first", first=first, trigger=trigger))
    assert isinstance(chain, FallbackChain)
    whole, streamed = agent(chain)
    assert "framework" in whole
    assert whole == streamed
    metrics = chain.metrics()
    assert (metrics.requests_total, metrics.fallbacks_total) == (2, 2)
    assert [slot.successes for slot in metrics.providers] == [0, 2]


@pytest.mark.parametrize("case", [case for case in FAILURES if "," not in case])
def test_a_chain_does_not_go_on_for_another_condition(
    case: str, write: Callable[..., Path], server: ScriptedServer
) -> None:
    first, reply = FAILURES[case]
    if reply is not None:
        server.says(reply)
    other = "timeout" if case != "timeout" else "auth_error"
    trigger = f"{{ conditions = [{json.dumps(other)}] }}"
    with (
        LLMClient(load_provider(write("remote-first", first=first, trigger=trigger))) as client,
        pytest.raises(LLMError),
    ):
        client.ask("What is MoFA?")


LOCAL_FAILURES = {
    "context_length_exceeded": 'model = "{model}"\nn_ctx = 16',
    "quota_exceeded": 'model = "{model}"\nmemory_budget = "1MiB"',
    "model_not_found": 'model = "no-such-file.gguf"',
}


@pytest.mark.parametrize("condition", LOCAL_FAILURES)
def test_a_local_model_that_cannot_answer_gives_way_to_the_server(
    condition: str, write: Callable[..., Path]
) -> None:
    small = LOCAL_FAILURES[condition]
    trigger = f"{{ conditions = [{json.dumps(condition)}] }}"
    with LLMClient(load_provider(write("local-first", trigger=trigger, small=small))) as client:
        assert client.ask("What is MoFA? " + "Tell me. " * 8, max_tokens=8)
        assert isinstance(client.provider, FallbackChain)
        assert client.provider.metrics().fallbacks_total == 1
    with (
        LLMClient(load_provider(write("local-first", trigger='"never"', small=small))) as client,
        pytest.raises(LLMError),
    ):
        client.ask("What is MoFA? " + "Tell me. " * 8, max_tokens=8)
