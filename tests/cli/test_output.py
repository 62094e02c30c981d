"""Numbers and progress as people read them."""

from __future__ import annotations

import io
import sys

import pytest

from mofa_gguf.cli.output import count, print_json_line, show_facts, size, write_any_text
from mofa_gguf.cli.progress import progress_view
from mofa_gguf.convert import ConversionProgress
from mofa_gguf.store import DownloadProgress


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_500_000, "4.5 MB"), (7.2e12, "7.2 TB")],
)
def test_sizes_are_in_powers_of_1000(n_bytes: float, text: str) -> None:
    assert size(n_bytes) == text


@pytest.mark.parametrize(
    ("number", "text"), [(12, "12"), (107_200, "107.2 K"), (7.2e9, "7.2 B"), (1.5e12, "1.5 T")]
)
def test_counts_are_short(number: float, text: str) -> None:
    assert count(number) == text


def test_without_a_terminal_facts_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_facts([("output", "model.gguf"), ("time", "0.4 s"), ("warning", "one\nother"), ("no", "")])
    assert capsys.readouterr().out.splitlines() == [
        "output   model.gguf",
        "time     0.4 s",
        "warning  one",
        "         other",
        "no",
    ]


def test_on_a_terminal_facts_fit_its_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    show_facts([("output", "word " * 20)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 40


def test_without_a_terminal_a_long_stage_is_a_few_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress_view() as progress:
        assert progress is not None
        progress(ConversionProgress("tokenizer", "", 0, 100, 0, 100_000_000))
        for n in range(101):
            progress(ConversionProgress("writing", f"blk.{n}", n, 100, n * 1_000_000, 100_000_000))
            now += 0.11
        progress(ConversionProgress("verifying", "", 100, 100, 100_000_000, 100_000_000))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "tokenizer",
        "writing (100.0 MB)",
        "writing: 46%, 9.1 MB/s",
        "writing: 92%, 9.1 MB/s",
        "verifying",
    ]


def test_quiet_progress_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_view(quiet=True) as progress:
        assert progress is None
    assert capsys.readouterr().err == ""


def test_on_a_terminal_progress_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress_view() as progress:
        assert progress is not None
        progress(DownloadProgress("org/name", "a.gguf", 0, 2, 0, 2_000_000))
        progress(DownloadProgress("org/name", "b.gguf", 1, 2, 2_000_000, 2_000_000))
    shown = capsys.readouterr().err
    assert "downloading org/name" in shown
    assert "2.0/2.0 MB" in shown


def test_what_a_terminals_encoding_lacks_is_a_question_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))
    write_any_text()
    print_json_line({"text": "größe 🌲"})
    sys.stdout.flush()
    assert written.getvalue() == b'{"text": "gr??e ?"}\n'
