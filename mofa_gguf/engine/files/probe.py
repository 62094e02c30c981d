"""A file loaded by a process of its own first, so that what ends a process ends that one.

The process plans, loads, tokenizes and computes one token, on the CPU, with little memory of its
own: weights are mapped, so their pages serve the load that follows.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from mofa_gguf.engine.errors import ModelFileError

logger = logging.getLogger(__name__)

_START_S = 60.0
"""Allowed for starting Python and the work itself on a busy machine."""
_S_PER_GIB = 30.0
_MEMORY_BYTES = 4 * 2**30
"""Address space beyond the file's own size."""
_CODE = (
    "import json, sys; given = json.loads(sys.stdin.readline()); sys.path[:] = given['path']; "
    "from mofa_gguf.engine.probed import main; main(given)"
)
_LONGEST = 200


def probe(path: Path) -> str | None:
    """Load the file in another process. What is wrong with it, or None.

    A problem that has nothing to do with the file (no second process, no memory) counts as none;
    it is logged. Raises ModelFileError where the process takes too long: on a busy machine the
    next one may not.
    """
    if not sys.executable:
        logger.warning("%s is loaded without a test: this Python cannot start another", path.name)
        return None
    n_bytes = path.stat().st_size
    given = {"path": sys.path, "file": str(path), "memory_bytes": _MEMORY_BYTES + 2 * n_bytes}
    limit_s = _START_S + _S_PER_GIB * n_bytes / 2**30
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE],
            input=json.dumps(given) + "\n",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            env={**os.environ, **_QUIET},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelFileError(
            path, f"took over {limit_s:.0f} s to load in a test process, so it is not loaded"
        ) from None
    except OSError as error:
        logger.warning("%s is loaded without a test (%s)", path.name, error)
        return None
    return _problem(done, path)


# No devices: the test is of the file. ggml would start a debugger to show where it ended.
_QUIET = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "GGML_NO_BACKTRACE": "1"}


def _problem(done: subprocess.CompletedProcess[str], path: Path) -> str | None:
    if done.returncode == 0:
        try:
            answer = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            answer = None
        if isinstance(answer, dict) and "problem" in answer:
            problem = answer["problem"]
            return None if problem is None else str(problem)
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    last = "".join(c if c.isprintable() else "?" for c in last)[-_LONGEST:]
    if done.returncode > 0:
        logger.warning("the test process for %s failed (%s)", path.name, last)
        return None
    number = -done.returncode
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return (
        f"ended the process that loaded it for a test ({name}: {last}), so it is damaged or "
        "needs another version of llama.cpp"
    )
