"""``batch``: a file of requests to a file of answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.batch.conftest import by_id, read_lines, text_of, write_lines
from tests.cli.conftest import Run
from tests.cli.test_terminal import Open, open_terminal  # noqa: F401 - a fixture

Configure = Callable[..., Path]
SOURCE, OUTPUT = Path("in.jsonl"), Path("out.jsonl")
COMMAND = ("batch", SOURCE, "-o", OUTPUT)


@pytest.fixture
def source() -> list[dict[str, str]]:
    lines = [{"custom_id": f"q{n}", "prompt": f"question {n}"} for n in range(20)]
    write_lines(SOURCE, lines)
    return lines


def test_the_answers_go_to_the_file_and_a_summary_to_standard_output(
    run: Run, configure: Configure, source: list[dict[str, str]]
) -> None:
    configure()
    result = run(*COMMAND)
    assert (result.code, result.err) == (0, "")
    assert "20 of 20 done, 0 failed" in result.out
    assert "40 read (0% of the prompts cached), 40 written" in result.out
    answers = by_id(OUTPUT)
    assert {name: text_of(line) for name, line in answers.items()} == {
        line["custom_id"]: line["prompt"] for line in source
    }


def test_the_summary_can_be_had_as_json(
    run: Run, configure: Configure, source: list[dict[str, str]]
) -> None:
    configure()
    summary = json.loads(run(*COMMAND, "--json").out)
    assert (summary["lines"], summary["done"], summary["failed"]) == (20, 20, 0)
    assert json.loads(run(*COMMAND, "--json").out)["done_before"] == 20


def test_failed_lines_are_told_and_computed_again_when_asked_for(
    run: Run, configure: Configure, source: list[dict[str, str]]
) -> None:
    configure(f"replies = {json.dumps(['fine'] * 15)}")
    result = run(*COMMAND)
    assert result.code == 1
    assert result.err == (
        "error: 5 of 20 lines failed; their errors are in out.jsonl, "
        "and --retry-failed computes them again\n"
    )
    configure()
    result = run(*COMMAND, "--retry-failed", "--ordered")
    assert result.code == 0
    assert "20 of 20 done, 0 failed (15 by earlier runs)" in result.out
    assert [line["custom_id"] for line in read_lines(OUTPUT)] == [s["custom_id"] for s in source]


def test_options_fill_what_the_lines_leave_open(run: Run, configure: Configure) -> None:
    # The scripted provider knows one model: a line that names another needs it ignored.
    write_lines(SOURCE, [{"prompt": "hello", "model": "gpt-9"}])
    configure()
    assert run(*COMMAND).code == 1
    assert read_lines(OUTPUT)[0]["error"]["code"] == "model_not_found"
    assert run(*COMMAND, "--ignore-model", "--retry-failed").code == 0
    assert text_of(read_lines(OUTPUT)[0]) == "hello"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["batch", "none.jsonl", "-o", "x.jsonl"], "there is no file none.jsonl"),
        (["batch", "in.jsonl", "-o", "in.jsonl"], "is the input; choose another output"),
        (["batch", "in.jsonl", "-o", "mofa.toml"], "its line 1 is no output of a batch"),
        (
            ["batch", "in.jsonl", "-o", "x.jsonl", "-m", "demo", "-p", "x"],
            "there is no provider 'x'",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run, configure: Configure, source: list[dict[str, str]], arguments: list[str], says: str
) -> None:
    before = configure().read_text()
    result = run(*arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert says in result.err
    assert Path("mofa.toml").read_text() == before
    assert not Path("x.jsonl").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["in.jsonl"], ["in.jsonl", "-o", "x", "--parallel", "0"]]
)
def test_wrong_usage_exits_with_2(run: Run, arguments: list[str]) -> None:
    assert run("batch", *arguments).code == 2


def test_ctrl_c_stops_in_good_order_and_the_same_command_goes_on(
    run: Run,
    configure: Configure,
    plugin: Path,
    source: list[dict[str, str]],
    open_terminal: Open,  # noqa: F811
) -> None:
    configure("delay_s = 0.05")
    terminal = open_terminal(*COMMAND, "--parallel", "2", PYTHONPATH=str(plugin))
    terminal.wait_for(r"batch\s+\S+.* [1-9]\d*/20")
    terminal.press("\x03")
    code = terminal.finish()
    assert code == 130
    assert "lines are done; the same command goes on from there" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert 0 < len(by_id(OUTPUT)) < 20
    assert run(*COMMAND).code == 0
    assert len(by_id(OUTPUT)) == 20
