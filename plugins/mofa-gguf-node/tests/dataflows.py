"""Running dataflows with the real dora runtime."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_LINE = re.compile(r"^\S+ +stdout +(?P<node>[\w-]+): (?P<text>.*)$", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Flow:
    """What became of a dataflow: dora's exit code, and all that was printed."""

    code: int
    output: str

    def said(self, node: str) -> list[str]:
        """The lines that a node printed."""
        plain = _COLOUR.sub("", self.output)
        return [found["text"] for found in _LINE.finditer(plain) if found["node"] == node]

    def said_after(self, node: str, word: str) -> list[str]:
        """What a node printed after ``word:`` at a line's beginning."""
        start = f"{word}: "
        return [line[len(start) :] for line in self.said(node) if line.startswith(start)]


def run_flow(file: Path, *, timeout_s: float = 500.0, **environment: str) -> Flow:
    """Run a dataflow to its end.

    Skips the test where dora's command is not installed. What it started is gone afterwards.
    """
    dora, env = dora_command(), dora_environment(**environment)
    process = subprocess.Popen(
        [dora, "run", file.name],
        cwd=file.parent,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        output, _ = process.communicate()
        raise AssertionError(f"the dataflow did not end within {timeout_s} s:\n{output}") from None
    return Flow(process.returncode, output)


def dora_command() -> str:
    """Dora's command; skips the test where it is not installed."""
    dora = shutil.which("dora", path=_search_path())
    if dora is None:
        pytest.skip("the command dora (dora-rs-cli) is not installed")
    pytest.importorskip("dora", reason="dora-rs is not installed")
    return dora


def dora_environment(**environment: str) -> dict[str, str]:
    """The environment of a dora process whose nodes run in this Python's environment.

    Dora looks for Python as for an activated environment's.
    """
    return {**os.environ, "PATH": _search_path(), "VIRTUAL_ENV": sys.prefix, **environment}


def _search_path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _end(process: subprocess.Popen[str]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
