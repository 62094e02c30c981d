"""The provider node on another machine of a dora cluster, with a real network between them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster
from two_hosts import TwoHosts

pytestmark = pytest.mark.dora

PLUGIN = Path(__file__).resolve().parent.parent
FLOWS = Path(__file__).resolve().parent / "flows"
MOFA = "MoFA is a framework for building AI agents, written in Rust."


@pytest.fixture
def cluster(
    two_hosts: TwoHosts, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Cluster:
    """A cluster of two machines."""
    cache = tmp_path_factory.getbasetemp() / "cache"  # the bundled model is converted once
    return Cluster(two_hosts, tmp_path, {"MOFA_GGUF_CACHE_DIR": str(cache)})


def test_the_two_machines_example_answers(cluster: Cluster, tmp_path: Path) -> None:
    shutil.copytree(PLUGIN / "examples", tmp_path / "examples")
    file = tmp_path / "examples" / "two_machines" / "flow.yml"
    file.write_text(file.read_text().replace("/opt/examples", str(tmp_path / "examples")))
    cluster.up()
    cluster.start(file)
    assert cluster.wait_for("asker", "answer: ") == f"answer: {MOFA}"
    assert cluster.wait() == 0, cluster.output
    pieces = [text.removeprefix("piece: ") for text in cluster.said("asker") if "piece:" in text]
    assert "".join(pieces).startswith(MOFA)


def test_a_killed_node_and_a_pulled_cable_are_error_events_and_it_serves_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "flow.yml"
    file.write_text(yaml.safe_dump({"nodes": _nodes()}))
    cluster.up()
    cluster.start(file)
    cluster.wait_for("keeper", f"answer: {MOFA}")

    cluster.provider_process().kill()
    cluster.wait_for("keeper", "status: loading")
    cluster.wait_for("keeper", f"answer: {MOFA}")

    cluster.rack.cut_off()
    cluster.wait_for("keeper", "error: Timeout")
    cluster.rack.reconnect()
    cluster.wait_for("keeper", f"answer: {MOFA}")
    cluster.stop()
    cluster.wait()


def _nodes() -> list[dict[str, Any]]:
    def near(source: str) -> dict[str, Any]:
        return {"source": source, "queue_size": 100, "queue_policy": "backpressure"}

    def far(source: str) -> dict[str, Any]:
        return {"source": source, "queue_size": 1000}

    return [
        {
            "id": "keeper",
            "path": str(FLOWS / "keeper.py"),
            "deploy": {"machine": "desk"},
            "inputs": {
                "answer": near("agent/llm_result"),
                "error": near("agent/error"),
                "status": near("agent/status"),
            },
            "outputs": ["query"],
        },
        {
            "id": "agent",
            "path": "mofa-gguf-agent",
            "deploy": {"machine": "desk"},
            "inputs": {"query": near("keeper/query"), "response": far("model/agent")},
            "outputs": ["request", "llm_result", "error", "status"],
            "env": {"MOFA_AGENT_TEMPERATURE": 0, "MOFA_AGENT_TIMEOUT_S": 4},
        },
        {
            "id": "model",
            "path": "mofa-gguf-provider",
            "deploy": {"machine": "rack"},
            "inputs": {"agent": far("agent/request")},
            "outputs": ["agent"],
            "restart_policy": "on-failure",
            "env": {"MOFA_GGUF_MODEL": "demo", "MOFA_GGUF_N_THREADS": 1},
        },
    ]
