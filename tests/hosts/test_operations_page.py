"""docs/operations.md as its reader does it, on two hosts: `desk` and `rack`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from two_hosts import TwoHosts

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
FLOW = REPOSITORY / "plugins/mofa-gguf-node/examples/two_machines/flow.yml"
LIBRARIES = os.environ.get("MOFA_GGUF_TEST_RPC_LIBRARIES", "")
DESK, RACK = "10.0.0.1", "10.0.0.2"


def commands(program: str) -> list[tuple[str, str]]:
    """The page's commands of a program, each with the machine that it is for."""
    return re.findall(rf"^(desk|rack)\$ ({program}(?: .*)?)$", PAGE, flags=re.M)


@pytest.mark.skipif(
    not Path(LIBRARIES, "libllama.so").is_file(),
    reason="no build with RPC: set MOFA_GGUF_TEST_RPC_LIBRARIES to a folder of tools/build_rpc.py",
)
def test_a_worker_is_used_as_the_page_says(two_hosts: TwoHosts, tmp_path: Path) -> None:
    desk, rack = two_hosts.a, two_hosts.b
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MOFA_")},
        "LLAMA_CPP_LIB_PATH": LIBRARIES,
        "MOFA_GGUF_CACHE_DIR": str(tmp_path / "cache"),
        "MOFA_GGUF_N_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    (config,) = re.findall(r"^```toml\n(# mofa.toml\n.*?)^```", PAGE, flags=re.M | re.S)
    (tmp_path / "mofa.toml").write_text(config.replace(RACK, rack.address))
    program = (sys.executable, "-m", "mofa_gguf")
    [(where, worker), (asker, ask)] = commands("mofa-gguf")
    assert (where, asker) == ("rack", "desk")
    lend = worker.replace(RACK, rack.address).split()[1:]
    process = rack.start(
        *(*program, *lend, "--threads", "1"), env=environment, cwd=tmp_path, stdout=-3, stderr=-3
    )
    rack.wait_for(50052, timeout_s=60)
    question = re.match(r'mofa-gguf ask "(.*)" (.*)', ask)
    assert question is not None
    done = desk.run(
        *(*program, "ask", question[1], *question[2].split()),
        env=environment,
        cwd=tmp_path,
        timeout_s=300,
    )
    assert done.returncode == 0, done.stderr
    assert "framework" in done.stdout
    assert "is not used" not in done.stderr
    assert process.poll() is None


def test_a_worker_that_anybody_could_reach_takes_the_flag_that_the_page_gives() -> None:
    [(_, worker), *_] = commands("mofa-gguf worker")
    from mofa_gguf.engine.errors import InvalidOption
    from mofa_gguf.engine.machine.rpc import check_host

    assert "--allow-public" in worker
    for host in (RACK, "0.0.0.0"):
        with pytest.raises(InvalidOption, match="--allow-public"):
            check_host(host, allow_public=False)


def test_the_cluster_of_dora_is_begun_as_the_example_says() -> None:
    told = re.findall(r"^#   (desk|rack)\$ (dora .*)$", FLOW.read_text("utf-8"), flags=re.M)
    assert [(host, line.replace("192.168.1.10", DESK)) for host, line in told] == commands("dora")
