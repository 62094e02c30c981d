"""The examples of a page: found in its text, and run as its reader runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "mofa_gguf" / "data" / "demo"

# Runs each example by itself, in one interpreter, and says which one failed.
_RUNNER = """
import sys
for number, example in enumerate(eval(sys.stdin.read()), 1):
    print(f"\\n-- {number}", flush=True)
    if isinstance(example, str):
        exec(compile(example, f"example {number}", "exec"), {"__name__": "__main__"})
    else:
        from mofa_gguf.cli.main import main
        if code := main(example):
            sys.exit(code)
"""


def blocks(text: str, language: str) -> list[str]:
    """A page's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def commands(text: str) -> list[str]:
    """A page's shell commands, without comments."""
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    return [line[2:].split("  #")[0].strip() for line in lines if line.startswith("$ ")]


def arguments_of(command: str) -> list[str]:
    """What ``mofa-gguf`` is given."""
    program, *arguments = command.split()
    assert program == "mofa-gguf"
    return arguments


def surroundings(cache: Path, **more: str) -> dict[str, str]:
    """An environment without settings of ours from outside."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MOFA_")}
    return {**inherited, "MOFA_GGUF_CACHE_DIR": str(cache), "MOFA_GGUF_N_THREADS": "1", **more}


def run(
    examples: Sequence[str | list[str]], folder: Path, environment: dict[str, str]
) -> list[str]:
    """What each example (Python, or the arguments of a command) says; all must end well.

    They run one after another in one fresh process: starting Python and llama.cpp takes longer
    than most examples.
    """
    done = subprocess.run(
        [sys.executable, "-c", _RUNNER],
        input=repr(list(examples)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.split(r"\n-- \d+\n", done.stdout)[1:]
