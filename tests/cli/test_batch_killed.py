"""``batch`` with a model in its process, killed: each line is in the output once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.batch.conftest import by_id, content, text_of, write_lines

N_LINES, N_KILLS = 500, 3
COMMAND = (
    *(sys.executable, "-m", "mofa_gguf", "batch", "in.jsonl", "-o", "out.jsonl"),
    *("-m", "demo", "--n-ctx", "1024", "--max-tokens", "2", "--temperature", "0", "--json"),
)


def test_500_lines_killed_three_times_are_each_there_once(tmp_path: Path) -> None:
    lines = [{"custom_id": f"q{n}", "prompt": f"What is {n}?"} for n in range(N_LINES)]
    write_lines(tmp_path / "in.jsonl", lines)
    output = tmp_path / "out.jsonl"
    environment = {
        **os.environ,
        "MOFA_GGUF_CACHE_DIR": str(tmp_path / "cache"),
        "MOFA_GGUF_N_THREADS": "1",
    }
    moments = sorted(random.sample(range(N_LINES // 20, N_LINES * 8 // 10), N_KILLS))
    for n_lines in moments:
        with subprocess.Popen(COMMAND, cwd=tmp_path, env=environment) as child:
            try:
                wait_for_lines(output, n_lines, child)
                time.sleep(random.uniform(0, 0.02))
            finally:
                child.kill()
        assert child.returncode == -signal.SIGKILL, f"killed at {moments}"
    n_whole = content(output).count(b"\n")
    assert moments[-1] <= n_whole < N_LINES
    last = subprocess.run(COMMAND, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    assert last.returncode == 0, last.stderr
    told = json.loads(last.stdout)
    assert (told["done"], told["failed"], told["done_before"]) == (N_LINES, 0, n_whole)
    answers = by_id(output)
    assert set(answers) == {line["custom_id"] for line in lines}
    assert all(text_of(answer) for answer in answers.values())


def wait_for_lines(output: Path, n_lines: int, child: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 120
    while content(output).count(b"\n") < n_lines:
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
