"""A short form of the fuzz campaign of tools/fuzz_gguf.py; its results are kept beside the tool."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mofa_gguf.engine.files.header import read_header
from tests.support.tiny_gguf import write_tiny_llama
from tools import fuzz_gguf
from tools.fuzz_gguf import campaign, spoil
from tools.gguf_parts import take_apart


def test_spoilt_models_are_refused_in_a_line_or_run() -> None:
    tally = campaign(range(200))
    assert tally.failures == []
    assert tally.n_cases == 200
    assert tally.n_refused > 80
    assert tally.n_loaded > 20
    assert tally.n_bytes_grown < fuzz_gguf.LIMIT_BYTES


def test_a_case_is_decided_by_its_number(tmp_path: Path) -> None:
    base = write_tiny_llama(tmp_path / "tiny.gguf")
    for case in range(40):
        assert spoil(base, case) == spoil(base, case)
    changed = [spoil(base, case)[1] != base.read_bytes() for case in range(40)]
    assert sum(changed) > 30


def test_a_file_taken_apart_and_put_together_is_the_same(tmp_path: Path) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    again = take_apart(path).write(tmp_path / "again.gguf")
    assert again.read_bytes() == path.read_bytes()
    assert read_header(again).tensors == read_header(path).tensors


@pytest.mark.parametrize("seed", range(20))
def test_numbers_near_a_number_can_be_written(seed: int, tmp_path: Path) -> None:
    parts = take_apart(write_tiny_llama(tmp_path / "tiny.gguf"))
    dice = random.Random(seed)
    for pair in parts.pairs:
        if isinstance(pair.value, int | float):
            pair.value = fuzz_gguf.number_near(pair.value, dice)
    assert len(parts.data()) > 1000


def test_a_child_that_dies_costs_one_case_and_is_a_failure(tmp_path: Path) -> None:
    tally = fuzz_gguf.Tally()
    waiting = [7, 8]
    log = tmp_path / "stderr"
    log.write_text("GGML_ASSERT(false) failed\n")

    class Dead:
        exitcode = -6
        pid = 0

        def join(self) -> None: ...

        def kill(self) -> None: ...

    class Reports:
        messages = [("begin", 7, 0.0)]  # noqa: RUF012

        def poll(self, seconds: float) -> bool:
            return True

        def recv(self) -> object:
            if not self.messages:
                raise EOFError
            return self.messages.pop(0)

    fuzz_gguf._follow(Dead(), Reports(), waiting, tally, log, say=False)  # type: ignore[arg-type]
    assert waiting == [8]
    assert tally.failures == ["case 7: the process died (-6): GGML_ASSERT(false) failed"]
    fuzz_gguf._count(tally, ("done", 8, ("bytes", "loaded", ""), 2**31, 1.0), 0.5)
    fuzz_gguf._count(tally, ("done", 9, ("bytes", "loaded", ""), 0, 1.0), 11.0)
    assert [failure.partition(":")[0] for failure in tally.failures] == [
        "case 7",
        "case 8",
        "case 9",
    ]
