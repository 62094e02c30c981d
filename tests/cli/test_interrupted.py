"""Ctrl-C at every moment of a command's life: exit code 130, and no traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.tiny_checkpoint import write_tiny_checkpoint
from tests.conftest import REPOSITORY

# Sends the process Ctrl-C where a module is first looked for.
PRESSING = """
import os, signal, sys

AT = sys.argv[1]

class PressCtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == AT:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
        return None

sys.meta_path.insert(0, PressCtrlC())
signal.signal(signal.SIGINT, {handler})
sys.argv[:] = ["mofa-gguf", *sys.argv[2:]]
{start}
"""


def entry() -> tuple[str, str]:
    """Module and function of the command, as an installer reads them."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^mofa-gguf = "([\w.]+):(\w+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1], found[2]


def starts() -> dict[str, str]:
    module, function = entry()
    return {
        "script": f"from {module} import {function}\nsys.exit({function}())",
        "module": "import runpy\nrunpy.run_module('mofa_gguf', run_name='__main__')",
    }


def pressed(
    start: str, at: str, *arguments: str, handler: str = "signal.default_int_handler"
) -> subprocess.CompletedProcess[str]:
    code = PRESSING.format(start=starts()[start], handler=handler)
    return subprocess.run(
        [sys.executable, "-c", code, at, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("start", ["script", "module"])
@pytest.mark.parametrize(
    "at",
    [
        "mofa_gguf.cli",
        "mofa_gguf.cli.main",
        "typer",
        "typer.core",
        "mofa_gguf.cli.inspect",  # the command
        "mofa_gguf.cli.output",  # when options are read
        "mofa_gguf.store",  # when the command runs
    ],
)
def test_ctrl_c_while_modules_are_imported_ends_silently_with_130(start: str, at: str) -> None:
    result = pressed(start, at, "inspect", "demo")
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_ctrl_c_while_help_is_made_ends_silently_with_130() -> None:
    result = pressed("script", "typer.rich_utils", "--help")
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_an_interrupt_that_the_process_was_started_to_ignore_is_ignored() -> None:
    result = pressed("script", "typer", "--version", handler="signal.SIG_IGN")
    assert result.returncode == 0
    assert result.stdout.startswith("mofa-gguf ")
    assert result.stderr == ""


def test_ctrl_c_at_its_usual_place_is_heard_again_once_the_command_runs(tmp_path: Path) -> None:
    """The handler of the imports must not be left in place: a command ends in good order."""
    ended = tmp_path / "ended"
    code = (
        "import os, pathlib, signal, sys, typer\n"
        "import mofa_gguf.cli.doctor as command\n"
        "def run() -> None:\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    finally:\n"
        f"        pathlib.Path({str(ended)!r}).touch()\n"
        "command.run = run\n"
        "sys.argv[:] = ['mofa-gguf', 'doctor']\n"
        f"{starts()['script']}\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
    assert ended.exists()


def test_ctrl_c_behind_the_work_ends_silently() -> None:
    code = (
        "import gc, os, signal, sys\n"
        "gc.freeze = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv[:] = ['mofa-gguf', '--version']\n"
        f"{starts()['script']}\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (130, "")


def test_little_is_imported_before_ctrl_c_is_provided_for() -> None:
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        f"import {entry()[0]}\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    slow = {"typing", "re", "pathlib", "dataclasses", "inspect", "importlib.metadata"}
    assert not slow & set(result.stdout.split())
    ours = [name for name in result.stdout.split() if name.startswith("mofa_gguf")]
    assert ours == [
        "mofa_gguf",
        "mofa_gguf.__main__",
        "mofa_gguf.convert",
        "mofa_gguf.unfinished",
    ]


# Runs a command that is sent a signal just behind the {nth} call of a function.
AT_WORK = """
import importlib, os, pathlib, signal, sys, weakref

# It may have been told to ignore them, as in a background job.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_, module, name, number, in_callback, *arguments = sys.argv
module = importlib.import_module(module)
owner_name, _, attribute = name.rpartition(".")
owner = getattr(module, owner_name) if owner_name else module
usual = getattr(owner, attribute)

class Some:
    pass

def told(*given, **named):
    result = usual(*given, **named)
    setattr(owner, attribute, usual)
    if in_callback == "yes":
        some = Some()
        kept = weakref.ref(some, lambda _: os.kill(os.getpid(), int(number)))
        del some
    else:
        os.kill(os.getpid(), int(number))
    return result

setattr(owner, attribute, told)
sys.argv[:] = ["mofa-gguf", *arguments]
from mofa_gguf.__main__ import program
program()
"""
CALLS = {
    "a file is made": ("mofa_gguf.convert.output", "PartialFile.begin"),
    "a folder is made": ("pathlib", "Path.mkdir"),
    "tensors are planned": ("mofa_gguf.convert.pipeline", "make_plan"),
    "the file is written": ("mofa_gguf.convert.delivery", "write_gguf"),
    "the file is loaded": ("mofa_gguf.engine.models.model", "Model.load"),
    "a part is named": ("pathlib", "Path.replace"),
    "the file is named": ("mofa_gguf.convert.output", "PartialFile.commit"),
}


@pytest.fixture
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def signalled(
    when: str, folder: Path, *arguments: str | Path, number: int, in_callback: bool = False
) -> subprocess.CompletedProcess[str]:
    """The command, run in ``folder``, which is also where its temporary files go."""
    line = [*CALLS[when], str(int(number)), "yes" if in_callback else "no", *arguments]
    return subprocess.run(
        [sys.executable, "-c", AT_WORK, *line],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(REPOSITORY)},
    )


@pytest.mark.skipif(os.name != "posix", reason="open files cannot be removed")
class TestAtWork:
    """A conversion that is ended leaves no file, whatever it is about."""

    @pytest.mark.parametrize("in_callback", [False, True], ids=["in a step", "in a callback"])
    @pytest.mark.parametrize("when", sorted(CALLS.keys() - {"a part is named"}))
    def test_ctrl_c_leaves_nothing_behind(
        self, when: str, in_callback: bool, checkpoint: Path, place: Path
    ) -> None:
        result = signalled(
            when,
            place,
            *("convert", checkpoint, "-o", "x.gguf"),
            number=signal.SIGINT,
            in_callback=in_callback,
        )
        assert result.returncode == 130, result.stderr
        assert "Error" not in result.stderr
        named = ["x.gguf"] if when == "the file is named" else []
        assert [path.name for path in place.iterdir()] == named

    @pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
    def test_other_signals_that_end_a_program_do_neither(
        self, name: str, checkpoint: Path, place: Path
    ) -> None:
        number = getattr(signal, name)
        line = ("convert", checkpoint, "-o", "x.gguf")
        result = signalled("the file is written", place, *line, number=number)
        assert result.returncode == 128 + number, result.stderr
        assert list(place.iterdir()) == []

    def test_parts_are_all_named_or_none(self, place: Path) -> None:
        line = ("convert", "demo", "-o", "x.gguf", "--split-max-size", "1M", "--no-verify")
        subprocess.run([sys.executable, "-m", "mofa_gguf", *line], cwd=place, check=True)
        before = {path.name: path.stat().st_ino for path in place.iterdir()}
        assert len(before) > 2
        result = signalled("a part is named", place, *line, "--force", number=signal.SIGINT)
        assert result.returncode == 130, result.stderr
        after = {path.name: path.stat().st_ino for path in place.iterdir()}
        assert after.keys() == before.keys()
        assert not set(after.values()) & set(before.values()), "some are new, some are not"

    def test_a_terminal_has_its_cursor_back(self, checkpoint: Path, place: Path) -> None:
        line = [*CALLS["the file is written"], str(int(signal.SIGINT)), "no"]
        ours, theirs = os.openpty()
        try:
            result = subprocess.run(
                [sys.executable, "-c", AT_WORK, *line, "convert", checkpoint, "-o", "x.gguf"],
                stderr=theirs,
                cwd=place,
                env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(REPOSITORY)},
                timeout=60,
                check=False,
            )
            shown = os.read(ours, 100_000)
        finally:
            os.close(ours)
            os.close(theirs)
        assert result.returncode == 130
        assert b"\x1b[?25l" in shown, "the bars hide it"
        assert shown.endswith((b"\x1b[?25h\n", b"\x1b[?25h\r\n"))
