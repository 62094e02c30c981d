"""A short form of the fuzz campaign of tools/fuzz_gguf.py; its results are kept beside the tool."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mofa_gguf.engine.files.header import read_header
from tests.support.tiny_gguf import write_tiny_llama
from tools.fuzz_gguf import BOUNDS, campaign
from tools.gguf_parts import take_apart
from tools.gguf_spoilers import number_near, spoil


def test_spoilt_models_are_refused_in_a_line_or_run() -> None:
    tally = campaign(range(200))
    assert tally.failures == []
    assert tally.n_cases == 200
    assert tally.n_refused > 80
    assert tally.n_passed > 20
    assert tally.n_bytes_grown < BOUNDS.n_bytes


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
            pair.value = number_near(pair.value, dice)
    assert len(parts.data()) > 1000
