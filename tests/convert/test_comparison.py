"""verify="deep": a file's predictions against those of the F32 weights."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert import ConversionError, OutputError, VerificationError, comparison, convert
from mofa_gguf.convert.comparison import Comparison, compare, read_text
from mofa_gguf.engine.models.logits import Probe
from tests.convert.makers import PARITY, write_checkpoint

TEXT = "The quick brown fox jumps over the lazy dog. 12 + 30 = 42\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def test_the_numbers_are_those_of_the_distributions(tmp_path: Path, text: Path) -> None:
    source = PARITY / "llama"
    report = convert(
        source, tmp_path / "q.gguf", "Q4_K_M", threads=1, verify="deep", verify_text=text
    )
    f32 = convert(source, tmp_path / "f.gguf", "F32", threads=1, verify=False)
    found = report.comparison
    assert found is not None
    with Probe(report.output, n_threads=1) as probe, Probe(f32.output, n_threads=1) as reference:
        tokens = _tokens(source)
        bos = probe.model.vocab.bos if probe.model.vocab.add_bos else None
        window = [token for token in [bos, *tokens] if token is not None][: found.n_tokens + 1]
        mine, theirs = (_log_probabilities(it.logits(window)) for it in (probe, reference))
    divergence = (np.exp(theirs) * (theirs - mine)).sum(axis=1)[:-1]
    assert found.n_tokens == len(window) - 1
    assert found.kl_mean == pytest.approx(divergence.mean(), rel=1e-3)
    assert found.kl_max == pytest.approx(divergence.max(), rel=1e-3)
    same = (mine.argmax(axis=1) == theirs.argmax(axis=1))[:-1]
    assert found.top1_agreement == pytest.approx(same.mean())
    losses = [-rows[np.arange(len(window) - 1), window[1:]].mean() for rows in (mine, theirs)]
    assert found.perplexity == pytest.approx(math.exp(losses[0]), rel=1e-4)
    assert found.perplexity_ratio == pytest.approx(math.exp(losses[0] - losses[1]), rel=1e-4)


def _tokens(source: Path) -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(source / "tokenizer.json")).encode(TEXT).ids)


def _log_probabilities(logits: Any) -> Any:
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def test_fewer_bits_are_further_away_and_f32_is_not_away_at_all(tmp_path: Path, text: Path) -> None:
    means = []
    for name in ("F32", "Q8_0", "Q4_0", "Q2_K"):
        report = convert(
            PARITY / "llama",
            tmp_path / f"{name}.gguf",
            name,
            threads=1,
            verify="deep",
            verify_text=text,
        )
        assert report.comparison is not None
        assert report.comparison.kl_mean is not None
        means.append(report.comparison.kl_mean)
    assert means[0] == pytest.approx(0, abs=1e-9)
    assert means == sorted(means)
    assert means[1] < 0.01 < means[3]


def test_the_report_has_it_in_words_and_in_json(tmp_path: Path) -> None:
    report = convert(PARITY / "llama", tmp_path / "q.gguf", "Q8_0", threads=1, verify="deep")
    assert report.checks[-1].name == "comparison with F32"
    for word in ("KL divergence", "same first choice", "perplexity", "ratio"):
        assert word in report.checks[-1].detail
    values = json.loads(json.dumps(report.to_dict()))["comparison"]
    assert set(values) >= {"kl_mean", "kl_max", "top1_agreement", "perplexity_ratio"}
    assert values["n_tokens"] > 500
    assert [path.name for path in tmp_path.iterdir()] == ["q.gguf"]


@pytest.mark.parametrize("name", ["parity/nomic-bert", "rerankers/bert"])
def test_encoders_are_compared_by_their_embeddings(name: str, tmp_path: Path, text: Path) -> None:
    report = convert(
        PARITY.parent / name,
        tmp_path / "q.gguf",
        "Q4_0",
        threads=1,
        verify="deep",
        verify_text=text,
    )
    assert report.comparison is not None
    assert report.comparison.kl_mean is None
    assert report.comparison.cosine_min is not None
    # Not 1, or something would be compared that has no direction.
    assert 0.9 < report.comparison.cosine_min < 0.99999


def test_long_texts_are_computed_in_windows_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = convert(PARITY / "llama", tmp_path / "q.gguf", "Q8_0", threads=1, verify=False).output
    lengths: list[int] = []
    original = Probe.logits

    def logits(self: Probe, tokens: Any) -> Any:
        lengths.append(len(tokens))
        return original(self, tokens)

    monkeypatch.setattr(Probe, "logits", logits)
    monkeypatch.setattr(comparison, "MAX_TOKENS", 100)
    monkeypatch.setattr(comparison, "_WINDOW_NUMBERS", 320 * 40)
    found = compare(file, file, [9, 10, 11, 12] * 50, n_threads=1)
    assert max(lengths) <= 40
    assert 90 <= found.n_tokens < 100
    assert found.top1_agreement == 1.0


def test_without_room_for_the_f32_weights_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    small = convert(PARITY / "llama", tmp_path / "x.gguf", "Q4_0", dry_run=True).n_bytes_out
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=small + 1000))
    with pytest.raises(OutputError, match="are needed"):
        convert(PARITY / "llama", tmp_path / "x.gguf", "Q4_0", threads=1, verify="deep")
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_that_is_not_finite_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.convert import deep

    broken = Comparison(3, kl_mean=math.nan, kl_max=1, perplexity=1, perplexity_f32=1)
    monkeypatch.setattr(deep, "compare", lambda *args, **options: broken)
    with pytest.raises(VerificationError, match="comparison with F32: is not finite"):
        convert(PARITY / "llama", tmp_path / "x.gguf", "Q8_0", threads=1, verify="deep")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_neither_file(tmp_path: Path) -> None:
    # As long as possible, and slow: a pipe that nobody writes to would not reach the comparison.
    source = write_checkpoint(tmp_path / "slow", num_hidden_layers=8)
    target = tmp_path / "out"
    target.mkdir()
    (tmp_path / "long.txt").write_text(TEXT * 200)
    command = [
        *(sys.executable, "-m", "mofa_gguf", "convert", source, "-o", target / "x.gguf"),
        *("-q", "Q8_0", "--verify", "deep", "--verify-text", tmp_path / "long.txt"),
    ]
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 60
        while not any("f32" in path.name for path in target.iterdir()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), (b"", "no text"), (b" \n", "no text"), (b"a\xff", "no UTF-8")],
)
def test_a_text_that_is_none_is_named(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConversionError, match=says):
        convert(PARITY / "llama", tmp_path / "x.gguf", verify="deep", verify_text=path)


def test_of_a_huge_text_the_beginning_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MAX_TEXT_BYTES", 10)
    path = tmp_path / "text.txt"
    path.write_text("123456789ü and so on")
    assert read_text(path) == "123456789"
    assert len(read_text(None)) > 1000


def test_verify_is_one_of_three(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="deep"):
        convert(PARITY / "llama", tmp_path / "x.gguf", verify="deeper")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="verify_text is for"):
        convert(PARITY / "llama", tmp_path / "x.gguf", verify_text=tmp_path / "text.txt")
