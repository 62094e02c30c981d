"""What llama.cpp computes from our files is what transformers computes from the checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mofa_gguf.convert import convert
from mofa_gguf.engine.models.logits import Probe
from tests.convert.makers import PARITY

FIXTURES = sorted(path for path in PARITY.iterdir() if path.is_dir())
ENCODERS = [path for path in FIXTURES if "embedding" in np.load(path / "reference.npz")]
DECODERS = [path for path in FIXTURES if path not in ENCODERS]
# llama.cpp rounds the inputs of four-bit blocks to 8 bits; test_mxfp4.py compares the blocks.
WITH_BLOCKS = ("gpt-oss-mxfp4",)
# llama.cpp looks GELU up in a table of 16-bit floats: its logits are less exact here.
WITH_GELU = ("bloom", "falcon", "gemma", "gpt-neox", "gpt2", "mpt", "phi", "starcoder2")

# llama.cpp does not read the norms' epsilon for this architecture.
WITHOUT_EPSILON = ("qwen2-vl", "qwen25-vl")


@pytest.mark.parametrize("checkpoint", DECODERS, ids=lambda path: path.name)
def test_logits_agree_at_every_position(checkpoint: Path, tmp_path: Path) -> None:
    reference = np.load(checkpoint / "reference.npz")
    report = convert(checkpoint, tmp_path / "model.gguf", "F32", threads=1)
    with Probe(report.output, n_threads=1) as probe:
        logits = probe.logits(reference["tokens"].tolist())
    expected = reference["logits"]
    tolerance = 1e-2 if checkpoint.name.startswith((*WITH_GELU, *WITHOUT_EPSILON)) else 1e-3
    in_blocks = checkpoint.name in WITH_BLOCKS
    np.testing.assert_allclose(logits, expected, atol=0.1 if in_blocks else tolerance, rtol=0)
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    lengths = np.linalg.norm(logits, axis=1) * np.linalg.norm(expected, axis=1)
    least = 0.999 if in_blocks else 0.9999
    assert ((logits * expected).sum(axis=1) / lengths > least).all()


@pytest.mark.parametrize("checkpoint", ENCODERS, ids=lambda path: path.name)
def test_the_embedding_of_an_encoder_agrees(checkpoint: Path, tmp_path: Path) -> None:
    reference = np.load(checkpoint / "reference.npz")
    report = convert(checkpoint, tmp_path / "model.gguf", "F32", threads=1)
    with Probe(report.output, n_threads=1) as probe:
        vector = probe.embedding(reference["tokens"].tolist())
    expected = reference["embedding"]
    cosine = vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected)
    assert cosine > 0.99999
    # llama.cpp looks its GELU up in a table of 16-bit floats.
    np.testing.assert_allclose(vector, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("quantization", "least"),
    [
        ("BF16", 0.9999),
        ("F16", 0.9999),
        ("Q8_0", 0.9995),
        ("Q6_K", 0.999),
        ("Q5_K_M", 0.98),
        ("Q4_K_M", 0.97),
        # Random weights have no structure to spare: four bits cost a few percent.
        ("Q4_0", 0.93),
    ],
)
def test_every_common_quantization_stays_close(
    quantization: str, least: float, tmp_path: Path
) -> None:
    checkpoint = PARITY / "llama"
    reference = np.load(checkpoint / "reference.npz")
    report = convert(checkpoint, tmp_path / "model.gguf", quantization, threads=1)
    with Probe(report.output, n_threads=1) as probe:
        logits = probe.logits(reference["tokens"].tolist())
    expected = reference["logits"]
    cosine = (logits * expected).sum() / np.linalg.norm(logits) / np.linalg.norm(expected)
    assert cosine > least
