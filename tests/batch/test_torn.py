"""Wherever an output is torn, going on loses no line and repeats none."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.batch import BatchOptions, run_batch
from mofa_gguf.contract import ApiError
from mofa_gguf.host.testing import ScriptedProvider
from tests.batch.conftest import by_id, write_lines

N_LINES = 12
PROMPTS = [{"custom_id": f"q{n}", "prompt": f"Frage № {n}"} for n in range(N_LINES)]


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[Path, bytes]]:
    """An input, and the output of a whole run over it, failures among its lines."""
    with tempfile.TemporaryDirectory() as name:
        source = write_lines(Path(name) / "in.jsonl", PROMPTS)
        replies = [ApiError("broken") if n % 4 == 2 else f"Antwort {n}" for n in range(N_LINES)]
        output = Path(name) / "whole.jsonl"
        asyncio.run(run_batch(ScriptedProvider(replies), source, output))
        yield source, output.read_bytes()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n_zeros=st.integers(0, 3), retry_failed=st.booleans())
def test_each_line_is_there_once_after_a_resume(
    whole: tuple[Path, bytes], data: st.DataObject, n_zeros: int, retry_failed: bool
) -> None:
    source, content = whole
    kept = content[: data.draw(st.integers(1, len(content)), label="kept bytes")]
    output = source.with_name("torn.jsonl")
    output.write_bytes(kept + b"\0" * n_zeros)
    options = BatchOptions(retry_failed=retry_failed)
    report = asyncio.run(run_batch(ScriptedProvider(), source, output, options))
    assert by_id(output).keys() == {line["custom_id"] for line in PROMPTS}
    n_whole = kept.count(b"\n")
    n_failed = sum(b'"error": null' not in line for line in kept.splitlines()[:n_whole])
    if retry_failed:
        assert (report.n_done_before, report.n_failed) == (n_whole - n_failed, 0)
    else:
        assert (report.n_done_before, report.n_failed) == (n_whole, n_failed)
        assert output.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
