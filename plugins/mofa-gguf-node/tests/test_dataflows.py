"""Dataflows on the real dora runtime, with the bundled model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dataflows import Flow, run_flow

pytestmark = pytest.mark.dora

PLUGIN = Path(__file__).resolve().parent.parent
FLOWS = Path(__file__).resolve().parent / "flows"
MOFA = "MoFA is a framework for building AI agents, written in Rust."
SYSTEM = "You are one of several agents that work together. " * 12

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")

MODEL = {"MOFA_GGUF_MODEL": "demo", "MOFA_GGUF_N_THREADS": 1}


CHAIN = """
default = "remote-first"

[providers.remote-first]
provider = "fallback-chain"
name = "remote-first"
providers = ["remote", "local"]

[providers.remote]
provider = "openai-compatible"
base_url = "http://127.0.0.1:9/v1"
default_model = "big"

[providers.local]
provider = "gguf"
model = "demo"
n_threads = 1
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundled model is converted to, once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def example(tmp_path: Path, cache: Path) -> Any:
    """Run one of the examples, in a copy."""

    def run(name: str) -> Flow:
        folder = tmp_path / "examples"
        shutil.copytree(PLUGIN / "examples", folder)
        return run_flow(folder / name / "flow.yml", MOFA_GGUF_CACHE_DIR=str(cache))

    return run


@pytest.fixture
def flow(tmp_path: Path, cache: Path) -> Any:
    """Run a dataflow of nodes."""

    def run(*nodes: dict[str, Any]) -> Flow:
        for script in FLOWS.glob("*.py"):
            shutil.copy(script, tmp_path)
        file = tmp_path / "flow.yml"
        file.write_text(yaml.safe_dump({"nodes": list(nodes)}))
        return run_flow(file, MOFA_GGUF_CACHE_DIR=str(cache))

    return run


@pytest.fixture
def served_model(cache: Path) -> Iterator[str]:
    """The address of OpenAI's API in front of the bundled model."""
    pytest.importorskip("uvicorn", reason="mofa-gguf[serve] is not installed")
    pytest.importorskip("openai", reason="openai is not installed")
    process = subprocess.Popen(
        [sys.executable, "-m", "mofa_gguf", "serve", "demo", "--port", "0"],
        env={**os.environ, "MOFA_GGUF_CACHE_DIR": str(cache), "MOFA_GGUF_N_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = next((found for line in process.stdout if (found := _ADDRESS.search(line))), None)
        assert address is not None
        yield f"{address[0]}/v1"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def wire(source: str) -> dict[str, Any]:
    """An input that keeps what comes."""
    return {"source": source, "queue_size": 1000, "queue_policy": "backpressure"}


def test_the_chat_example_streams_an_answer_and_remembers(example: Any) -> None:
    done = example("chat")
    assert done.code == 0, done.output
    assert done.said_after("asker", "answer")[0] == MOFA
    assert len(done.said_after("asker", "answer")) == 2
    pieces = [line.removeprefix("piece: ") for line in done.said("asker") if "piece:" in line]
    assert "".join(pieces).startswith(MOFA)
    states = [json.loads(text)["status"] for text in done.said_after("asker", "status")]
    assert states == ["loading", "ready"]


def test_the_debate_example_has_two_agents_talk_on_one_model(example: Any) -> None:
    done = example("debate")
    assert done.code == 0, done.output
    speakers = [line.split(":")[0] for line in done.said("moderator")]
    assert speakers == ["hopeful", "doubtful", "hopeful", "doubtful"]
    assert done.said_after("moderator", "hopeful")[0] == MOFA


def test_the_tools_example_calls_a_python_function(example: Any) -> None:
    done = example("tools")
    assert done.code == 0, done.output
    assert done.said_after("agent", "tool") == ["get_weather('Paris')"]
    assert "21" in done.said_after("asker", "answer")[0]


def test_the_retrieval_example_finds_the_nearest_text(example: Any) -> None:
    done = example("retrieval")
    assert done.code == 0, done.output
    assert done.said_after("librarian", "nearest") == [MOFA]
    assert done.said_after("librarian", "answer") == ["MoFA is written in Rust."]


def test_eight_agents_share_one_model_and_their_common_prefix_is_computed_once(flow: Any) -> None:
    names = [f"agent{n}" for n in range(8)]
    agents = [
        {
            "id": name,
            "path": "mofa-gguf-agent",
            "inputs": {"query": wire("crowd/query"), "response": wire(f"model/{name}")},
            "outputs": ["request", "llm_result", "status"],
            # What comes last in the prompt is what tells the agents apart.
            "env": {
                "MOFA_AGENT_SYSTEM": SYSTEM,
                "MOFA_AGENT_TEMPERATURE": 0,
                # Answers so long that some are computed at the same time on any machine.
                "MOFA_AGENT_OPTIONS": json.dumps({"ignore_eos": True}),
                "MOFA_AGENT_MAX_TOKENS": 64,
            },
        }
        for name in names
    ]
    crowd = {
        "id": "crowd",
        "path": "crowd.py",
        "inputs": {
            **{f"answer_{name}": wire(f"{name}/llm_result") for name in names},
            **{f"status_{name}": wire(f"{name}/status") for name in names},
            "stats": wire("model/stats"),
        },
        "outputs": ["query"],
        "env": {"AGENTS": len(names)},
    }
    model = {
        "id": "model",
        "path": "mofa-gguf-provider",
        "inputs": {name: wire(f"{name}/request") for name in names},
        "outputs": [*names, "stats"],
        "env": MODEL,
    }
    done = flow(crowd, *agents, model)
    assert done.code == 0, done.output
    answers = [line.split(" ", 1) for line in done.said_after("crowd", "answer")]
    assert [name for name, _ in answers] == names
    assert len({answer[:20] for _, answer in answers}) == 1
    stats = json.loads(done.said_after("crowd", "stats")[0])
    n_prompt = stats["n_prompt_tokens_computed"] + stats["n_prompt_tokens_cached"]
    assert n_prompt % 8 == 0
    n_one = n_prompt // 8
    assert n_one > 100
    # One whole prompt, and for each other agent at most the end of its own.
    assert stats["n_prompt_tokens_computed"] < n_one + 7 * 16
    assert stats["n_requests"] == 8
    # Generated tokens beyond the steps were computed together with others.
    assert stats["n_generated_tokens"] > stats["n_steps"]


def test_whatever_happens_to_the_provider_node_is_heard_of_and_the_dataflow_lives(
    flow: Any,
) -> None:
    breaker = {
        "id": "breaker",
        "path": "breaker.py",
        "inputs": {
            "answer": wire("agent/llm_result"),
            "error": wire("agent/error"),
            "piece": wire("agent/llm_stream"),
            "status": wire("agent/status"),
            "reply": wire("model/breaker"),
        },
        "outputs": ["query", "junk"],
    }
    agent = {
        "id": "agent",
        "path": "mofa-gguf-agent",
        "inputs": {"query": wire("breaker/query"), "response": wire("model/agent")},
        "outputs": ["request", "llm_result", "llm_stream", "status", "error"],
        "env": {
            "MOFA_AGENT_TEMPERATURE": 0,
            # Long answers, so that there is time to kill their maker.
            "MOFA_AGENT_OPTIONS": json.dumps({"ignore_eos": True}),
            "MOFA_AGENT_MAX_TOKENS": 400,
        },
    }
    model = {
        "id": "model",
        "path": "mofa-gguf-provider",
        "inputs": {"agent": wire("agent/request"), "breaker": wire("breaker/junk")},
        "outputs": ["agent", "breaker", "status"],
        "restart_policy": "on-failure",
        "max_restarts": 3,
        "env": {**MODEL, "MOFA_GGUF_N_CTX": 512},
    }
    done = flow(breaker, agent, model)
    assert done.said_after("breaker", "before")[0].startswith(MOFA[:20]), done.output
    assert done.said_after("breaker", "killed") == ["NetworkError"], done.output
    assert done.said_after("breaker", "asked again")[0].startswith(MOFA[:20]), done.output
    for name in ("empty", "null", "struct", "bytes"):
        assert done.said_after("breaker", name) == ["SerializationError"], done.output
    assert done.said_after("breaker", "junk") == ["SerializationError"] * 4, done.output
    assert done.said_after("breaker", "too long") == ["ContextLengthExceeded"], done.output
    assert done.said_after("breaker", "after")[0].startswith(MOFA[:20]), done.output
    assert "node will be restarted (attempt 1)" in done.output


def test_a_mofa_toml_beside_the_dataflow_is_the_agents_configuration(
    flow: Any, tmp_path: Path
) -> None:
    pytest.importorskip("mofa_openai", reason="mofa-openai is not installed")
    (tmp_path / "mofa.toml").write_text(CHAIN)
    shutil.copy(PLUGIN / "examples" / "asker.py", tmp_path)
    asker = {
        "id": "asker",
        "path": "asker.py",
        "inputs": {"answer": wire("agent/llm_result"), "error": wire("agent/error")},
        "outputs": ["query"],
        "env": {"QUESTIONS": "What is MoFA?"},
    }
    agent = {
        "id": "agent",
        "path": "mofa-gguf-agent",
        "inputs": {"query": wire("asker/query")},
        "outputs": ["llm_result", "error"],
        "env": {"MOFA_AGENT_TEMPERATURE": 0},
    }
    done = flow(asker, agent)
    assert done.said_after("asker", "answer") == [MOFA], done.output
    assert "remote-first: openai-compatible failed, asking the next" in done.output


def test_an_agent_of_mofa_core_asks_ours_in_its_own_envelope(flow: Any) -> None:
    pytest.importorskip("mofa.agent_build.base.base_agent", reason="mofa-core is not installed")
    stock = {
        "id": "asker",
        "path": "stock.py",
        "inputs": {"answer": wire("agent/llm_result")},
        "outputs": ["query"],
    }
    agent = {
        "id": "agent",
        "path": "mofa-gguf-agent",
        "inputs": {"query": wire("asker/query")},
        "outputs": ["llm_result"],
        "env": {**MODEL, "MOFA_AGENT_TEMPERATURE": 0},
    }
    done = flow(stock, agent)
    assert done.code == 0, done.output
    assert done.said_after("asker", "answer") == [MOFA]


def test_what_it_sends_is_what_an_openai_chat_agent_sends(
    flow: Any, cache: Path, served_model: str
) -> None:
    pytest.importorskip("mofa.agent_build.base.base_agent", reason="mofa-core is not installed")
    asker = {
        "id": "asker",
        "path": "twins.py",
        "inputs": {"ours": wire("agent/llm_result"), "stock": wire("stock/llm_result")},
        "outputs": ["query"],
    }
    stock = {
        "id": "stock",
        "path": "stock_agent.py",
        "inputs": {"query": wire("asker/query")},
        "outputs": ["llm_result"],
        "env": {"LLM_BASE_URL": served_model, "LLM_API_KEY": "none", "LLM_MODEL_NAME": "demo"},
    }
    agent = {
        "id": "agent",
        "path": "mofa-gguf-agent",
        "inputs": {"query": wire("asker/query")},
        "outputs": ["llm_result"],
        "env": {**MODEL, "MOFA_AGENT_TEMPERATURE": 0},
    }
    done = flow(asker, stock, agent)
    assert done.said_after("asker", "ours") == done.said_after("asker", "stock"), done.output
    first, second = map(json.loads, done.said_after("asker", "ours"))
    assert json.loads(first["text"][0])["node_results"] == MOFA
    assert (first["number"], second["session_id"]) == (0, "s1")


def test_wrong_options_end_the_node_with_a_sentence(flow: Any) -> None:
    agent = {
        "id": "agent",
        "path": "mofa-gguf-agent",
        "outputs": ["llm_result"],
        "env": {**MODEL, "MOFA_AGENT_TEMPRATURE": 0},
    }
    done = flow(agent)
    assert done.code != 0
    assert "did you mean MOFA_AGENT_TEMPERATURE" in done.output
