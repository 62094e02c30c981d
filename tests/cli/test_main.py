"""The command itself: help, usage, exit codes, errors."""

from __future__ import annotations

import ast
import gc
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from mofa_gguf.cli.examples import EXAMPLES
from mofa_gguf.cli.main import COMMANDS, app_of
from tests.cli.conftest import Run


def command(*arguments: str) -> list[str]:
    """The command in a process of its own."""
    return [
        sys.executable,
        "-c",
        "from mofa_gguf.__main__ import program; program()",
        *arguments,
    ]


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for name in COMMANDS:
        assert f" {name} " in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_it_takes(run: Run, name: str) -> None:
    result = run(name, "-h")
    assert result.code == 0
    assert f"mofa-gguf {name}" in result.out
    assert f"Example: {EXAMPLES[name]}" in " ".join(result.out.split())
    _, named, *arguments = shlex.split(EXAMPLES[name])
    assert named == name
    # Raises a usage error for options that there are not.
    typer.main.get_command(app_of()).commands[name].make_context(name, arguments)


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["nothing"], ["-v", "nothing"]])
def test_a_line_that_begins_with_no_command_is_answered_as_by_the_whole_app(
    run: Run, arguments: list[str]
) -> None:
    assert run(*arguments).code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_a_line_that_begins_with_a_command_imports_no_other(name: str) -> None:
    program = (
        "import sys; from mofa_gguf.cli.main import COMMANDS, main; main(sys.argv[1:]);"
        "loaded = {name for name in COMMANDS if f'mofa_gguf.cli.{name}' in sys.modules};"
        "print(sorted(loaded), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, name, "-h"], capture_output=True, text=True, check=True
    )
    loaded = set(ast.literal_eval(ended.stderr.splitlines()[-1]))
    assert loaded == {name}


def test_a_model_that_is_not_there_is_told_without_what_requests_are_made_of() -> None:
    program = (
        "import sys; from mofa_gguf.cli.main import main; assert main(sys.argv[1:]) == 1;"
        "heavy = {'numpy', 'llama_cpp', 'pydantic'} & set(sys.modules); assert not heavy, heavy"
    )
    line = [sys.executable, "-c", program, "convert", "/no/such/folder"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "/no/such/folder" in ended.stderr


def test_options_may_stand_in_front_of_the_command(run: Run) -> None:
    for name in COMMANDS:
        assert run("-v", name, "-h").out == run(name, "-h").out


def test_help_shows_what_stands_in_brackets(run: Run) -> None:
    assert "pip install 'mofa-gguf[serve]'" in run("serve", "-h").out


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys\n"
        "from mofa_gguf.cli.main import main\n"
        "code = main(['--help'])\n"
        "heavy = {'llama_cpp', 'numpy', 'pydantic', 'huggingface_hub', 'gguf', 'tokenizers'}\n"
        "assert code == 0\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    seconds = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
        after = os.times()
        # Time on the processor: a busy machine does not count.
        spent = after.children_user + after.children_system
        seconds.append(spent - before.children_user - before.children_system)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["convert"],
        ["convert", "x", "--threads", "0"],
        ["convert", "x", "--nonsense"],
        ["ask"],
        ["ask", "hello", "--max-tokens", "none"],
        ["pull"],
    ],
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Usage: mofa-gguf" in result.err
    assert result.out == ""


def test_version_is_printed(run: Run) -> None:
    from mofa_gguf import __version__

    assert run("--version").out == f"mofa-gguf {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["inspect", "none.gguf"], "there is no model 'none.gguf': the path does not exist"),
        (["convert", "none/at/all"], "does not exist"),
        (["ask", "hello", "-m", "none.gguf"], "does not exist"),
        (["ask", "hello"], "there is no configuration file"),
        (["ask", "hello", "-c", "none.toml"], "no such configuration file"),
        (["ask", " "], "the prompt is empty"),
        (["ask", "hello", "--n-ctx", "100"], "--n-ctx and --n-gpu-layers go with a model"),
        (["ask", "hello", "-m", "demo", "-p", "x"], "there is no config file"),
        (["ask", "hello", "--schema", "none.json"], "cannot read the schema none.json"),
        (["chat", "none.gguf"], "does not exist"),
        (["embed", "hello", "-m", "none/x.gguf"], "does not exist"),
        (["pull", "one"], "a hub id is org/name"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(run: Run, arguments: list[str], says: str) -> None:
    result = run(*arguments)
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert says in result.err


def test_a_bug_is_one_line_too_and_says_how_to_see_more(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise RuntimeError("something\nodd")

    monkeypatch.setattr("mofa_gguf.store.pull", fail)
    result = run("pull", "org/name")
    assert result.code == 1
    assert result.err == (
        "error: this is a bug in mofa-gguf (RuntimeError: something odd); "
        "run again with MOFA_GGUF_DEBUG=1 to see where, and report it\n"
    )


def _of_a_cause() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise RuntimeError("Error calling __set_name__ on an instance") from error


def _of_a_text() -> None:
    raise ValueError("Error building `literal` serializer: KeyboardInterrupt:")


def _of_a_failure_behind_it() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise FileNotFoundError(2, "not there", "x") from None


@pytest.mark.parametrize(
    ("fail", "code", "says"),
    [
        (_of_a_cause, 130, ""),
        (_of_a_text, 130, ""),
        (_of_a_failure_behind_it, 1, "error: [Errno 2] not there: 'x'\n"),
    ],
)
def test_what_a_library_makes_of_ctrl_c_is_ctrl_c(
    fail: Callable[[], None], code: int, says: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mofa_gguf.store.pull", lambda *_, **__: fail())
    result = run("pull", "org/name")
    assert (result.code, result.err) == (code, says)


def test_the_debug_variable_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFA_GGUF_DEBUG", "1")
    ran = subprocess.run(
        command("inspect", "none.gguf"), capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1
    assert "Traceback" in ran.stderr
    assert "ModelMissing" in ran.stderr


def test_a_reader_that_goes_away_is_no_error_message() -> None:
    with subprocess.Popen(
        command("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_only_a_process_of_its_own_is_spared_the_search_for_garbage(run: Run) -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    assert run("--version").code == 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
    code = (
        "import gc; from mofa_gguf.__main__ import main; main(); "
        "print(gc.get_threshold()[0], gc.get_freeze_count() > 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "300000 True"


def test_a_conversion_that_ends_at_once_has_said_everything(run: Run) -> None:
    ended = subprocess.run(command("convert", "--list"), capture_output=True, check=False)
    listed = run("convert", "--list")
    assert (ended.returncode, ended.stdout.decode()) == (0, listed.out)
    assert len(listed.out) > 1000


@pytest.mark.parametrize(
    ("arguments", "code"), [(["convert", "/nowhere"], 1), (["quantize", "--no-such-option"], 2)]
)
def test_a_conversion_that_fails_ends_with_its_code(arguments: list[str], code: int) -> None:
    ended = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert ended.returncode == code
    assert ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_does_not_arrive_is_an_error() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ended = subprocess.run(
            command("convert", "--list"), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ended.returncode != 0
    assert b"No space left" in ended.stderr
