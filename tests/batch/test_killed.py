"""A batch that is killed, as often as one likes: each line once in the output."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.batch.conftest import by_id, text_of, write_lines

N_LINES, PARALLEL, N_KILLS = 500, 8, 3

# Each request is noted, so that what is computed twice shows.
CHILD = """
import asyncio, os, sys
from mofa_gguf.batch import BatchOptions, run_batch
from mofa_gguf.host.testing import ScriptedProvider

class Noting(ScriptedProvider):
    async def chat(self, request):
        os.write(notes, b"x")
        await asyncio.sleep(0.01)
        return await super().chat(request)

source, output, log, parallel = sys.argv[1:]
notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
asyncio.run(run_batch(Noting(chunk_chars=99), source, output, BatchOptions(parallel=int(parallel))))
"""


def test_500_lines_killed_three_times_are_each_there_once(tmp_path: Path, output: Path) -> None:
    lines = [{"custom_id": f"q{n}", "prompt": f"question {n}"} for n in range(N_LINES)]
    source, log = write_lines(tmp_path / "in.jsonl", lines), tmp_path / "requests"
    command = [sys.executable, "-c", CHILD, *map(str, (source, output, log, PARALLEL))]
    moments = sorted(random.sample(range(N_LINES // 20, N_LINES * 9 // 10), N_KILLS))
    for n_requests in moments:
        with subprocess.Popen(command) as child:
            try:
                wait_for_size(log, n_requests, child)
                time.sleep(random.uniform(0, 0.01))
            finally:
                child.kill()
        assert child.returncode == -signal.SIGKILL, f"killed at {moments}"
    n_whole = output.read_bytes().count(b"\n")
    assert 0 < n_whole < N_LINES
    subprocess.run(command, check=True, timeout=60)
    answers = by_id(output)
    assert {name: text_of(line) for name, line in answers.items()} == {
        line["custom_id"]: line["prompt"] for line in lines
    }
    # Only what was in flight, or ended and not yet on the disk, was computed again.
    assert log.stat().st_size <= N_LINES + N_KILLS * 2 * PARALLEL


def wait_for_size(path: Path, n_bytes: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < n_bytes:
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
