"""The same agent on a local model, and on a chain whose first local model fails in each way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf import AsyncLLMClient, FallbackChain, LLMClient, LLMError, LLMProvider, load_provider
from mofa_gguf.engine.machine.devices import gpus
from tests.support.tiny_gguf import TinyLlama, start_file, write_tiny_llama

N_AT_ONCE = 4

# How a local model fails as a condition says. A wrong key is beyond it: plugins/mofa-openai has
# that, and a server that fails in every way.
FAILURES = {
    "rate_limited": "max_parallel = 1\nmax_queue = 1",
    "quota_exceeded": "memory_budget = 1000",
    "network_error": "model = 'org/never-downloaded'\noffline = true",
    "timeout": "timeout_s = 0.000001",
    "provider_unavailable": "require_gpu = true",
    "context_length_exceeded": "n_ctx = 16",
    "model_not_found": "model = 'none.gguf'",
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Writes a mofa.toml with a model that fails, one that does not, and a chain of both."""
    write_tiny_llama(tmp_path / "tiny.gguf", TinyLlama(n_ctx=256))

    def write_file(default: str, failure: str, trigger: str) -> Path:
        model = "" if "model =" in failure else "model = 'tiny.gguf'"
        (tmp_path / "mofa.toml").write_text(
            f"""
            default = "{default}"
            [providers.failing]
            provider = "gguf"
            {model}
            n_threads = 1
            cache_dir = "cache"
            {failure}
            [providers.sound]
            provider = "gguf"
            model = "tiny.gguf"
            n_threads = 1
            cache_dir = "cache"
            [providers.chain]
            provider = "fallback-chain"
            providers = [{{ use = "failing", trigger = {trigger} }}, "sound"]
            """
        )
        return tmp_path / "mofa.toml"

    return write_file


async def agent(provider: LLMProvider) -> list[str]:
    """Asks several times at once, so that a short queue is full, and once more, streamed."""
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 150, "ignore_eos": True}
    async with AsyncLLMClient(provider) as client:
        answers = await asyncio.gather(*(client.ask("Hello", **options) for _ in range(N_AT_ONCE)))
        pieces = [piece async for piece in client.ask_stream("Hello", **options)]
        return [*answers, "".join(pieces)]


async def test_one_local_model_answers(write: Callable[[str, str, str], Path]) -> None:
    answers = await agent(load_provider(write("sound", "", '"default"')))
    assert len(set(answers)) == 1


@pytest.mark.parametrize("condition", FAILURES)
async def test_a_chain_goes_on_when_the_local_model_fails_as_the_condition_says(
    condition: str, write: Callable[[str, str, str], Path]
) -> None:
    if condition == "provider_unavailable" and gpus():
        pytest.skip("this machine has the GPU that should be missing")
    trigger = f"{{ conditions = [{json.dumps(condition)}] }}"
    chain = load_provider(write("chain", FAILURES[condition], trigger))
    assert isinstance(chain, FallbackChain)
    answers = await agent(chain)
    assert len(set(answers)) == 1
    metrics = chain.metrics()
    assert metrics.requests_total == N_AT_ONCE + 1
    assert metrics.fallbacks_total >= 1
    assert sum(slot.successes for slot in metrics.providers) == N_AT_ONCE + 1


@pytest.mark.parametrize("condition", sorted(set(FAILURES) - {"rate_limited"}))
def test_it_does_not_go_on_for_another_condition(
    condition: str, write: Callable[[str, str, str], Path]
) -> None:
    if condition == "provider_unavailable" and gpus():
        pytest.skip("this machine has the GPU that should be missing")
    trigger = '{ conditions = ["auth_error"] }'
    with (
        LLMClient(load_provider(write("chain", FAILURES[condition], trigger))) as client,
        pytest.raises(LLMError),
    ):
        client.ask("Hello")


def test_an_architecture_that_cannot_be_run_makes_way_too(
    tmp_path: Path, write: Callable[[str, str, str], Path]
) -> None:
    writer = start_file(tmp_path / "strange.gguf", "no-such-kind", n_ctx=64, n_embd=8, n=1)
    import numpy as np

    from tests.support.tiny_gguf import finish_file

    writer.add_tensor("token_embd.weight", np.zeros((259, 8), dtype=np.float32))
    finish_file(writer)
    trigger = '{ conditions = ["provider_unavailable"] }'
    with LLMClient(load_provider(write("chain", "model = 'strange.gguf'", trigger))) as client:
        assert client.ask("Hello", max_tokens=3, ignore_eos=True)
