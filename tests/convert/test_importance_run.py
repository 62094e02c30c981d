"""Importance matrices computed here: what flows into each matrix, chunk by chunk."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from mofa_gguf.convert import (
    ConversionError,
    ConversionProgress,
    ImportanceError,
    OutputError,
    TypeChoiceError,
    compute_importance,
    convert,
    quantize,
)
from mofa_gguf.convert.importance import read_importance
from mofa_gguf.convert.safetensors_file import SafetensorsFile
from mofa_gguf.engine.models.activations import ColumnSums
from mofa_gguf.engine.models.logits import Probe
from mofa_gguf.engine.models.reading import Reading, read_in_chunks
from tests.convert.makers import CONFIG, PARITY, llama_tensors, write_checkpoint
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

TEXT = "the model reads this text, and some more of it: 1 + 1 = 2; " * 12
CHUNK = 32


def model(family: str, folder: Path, quantization: str = "F32") -> Path:
    path = folder / f"{family}.gguf"
    convert(PARITY / family, path, quantization, threads=1, verify=False)
    return path


def chunks_of(path: Path, n: int) -> list[list[int]]:
    with Probe(path, n_threads=1) as probe:
        vocab = probe.model.vocab
        tokens = vocab.tokenize(TEXT, add_special=True)
        chunks = [tokens[i * CHUNK : (i + 1) * CHUNK] for i in range(n)]
        first = [vocab.bos] if vocab.add_bos else []
        return [[*first, *chunk[len(first) :]] for chunk in chunks]  # type: ignore[list-item]


def read(path: Path, *, with_output: bool = False, max_chunks: int = 3) -> Reading:
    return read_in_chunks(
        path,
        TEXT,
        chunk_size=CHUNK,
        max_chunks=max_chunks,
        with_output=with_output,
        n_threads=1,
    )


def test_what_flows_into_the_first_layer_is_the_normalized_embeddings(tmp_path: Path) -> None:
    path = model("llama", tmp_path)
    columns = read(path).columns
    weights = SafetensorsFile(PARITY / "llama" / "model.safetensors")

    def stored(name: str) -> np.ndarray:
        bits = weights.array(name)
        if bits.dtype != np.uint16:
            return bits.astype(np.float64)
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)

    embeddings, norm = (
        stored("model.embed_tokens.weight"),
        stored("model.layers.0.input_layernorm.weight"),
    )
    rows = embeddings[np.concatenate(chunks_of(path, 3))]
    rows = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6) * norm
    for name in ("attn_q", "attn_k", "attn_v"):
        found = columns[f"blk.0.{name}.weight"]
        assert found.counts.tolist() == [3 * CHUNK]
        np.testing.assert_allclose(found.sums[0], (rows**2).sum(axis=0), rtol=1e-3)
    assert set(columns) == {
        f"blk.{layer}.{name}.weight"
        for layer in (0, 1)
        for name in (
            *("attn_q", "attn_k", "attn_v", "attn_output"),
            *("ffn_gate", "ffn_up", "ffn_down"),
        )
    }


def test_the_output_matrix_is_left_out_unless_it_is_wanted(tmp_path: Path) -> None:
    path = model("llama", tmp_path)
    without, with_it = read(path).columns, read(path, with_output=True).columns
    assert set(with_it) - set(without) == {"output.weight"}
    assert with_it["output.weight"].counts.tolist() == [3 * CHUNK]


@pytest.mark.parametrize(("family", "n_used"), [("mixtral", 2), ("deepseek-v2", 2)])
def test_experts_count_the_tokens_that_were_sent_to_them(
    family: str, n_used: int, tmp_path: Path
) -> None:
    columns = read(model(family, tmp_path)).columns
    routers = [name for name in columns if name.endswith("ffn_gate_inp.weight")]
    assert routers
    for name in routers:
        router = columns[name]
        for part in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
            experts = columns[name.replace("ffn_gate_inp", part)]
            assert len(experts.counts) == len(experts.sums) > n_used
            assert experts.counts.sum() == n_used * router.counts.sum()
            if part != "ffn_down_exps":
                # Each token's input goes to as many experts as are used.
                total = experts.sums.sum(axis=0)
                np.testing.assert_allclose(total, n_used * router.sums[0], rtol=1e-4)


def test_what_is_asked_for_in_parts_adds_up(tmp_path: Path) -> None:
    path = model("llama-gqa-tied", tmp_path)
    one, three = read(path, max_chunks=1).columns, read(path).columns
    for name, entry in three.items():
        assert (entry.counts == 3 * one[name].counts).all()
        assert (entry.sums >= one[name].sums).all()


def compute(path: Path, tmp_path: Path, **options: object) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    report = compute_importance(
        path,
        tmp_path / "text.txt",
        tmp_path / "imatrix.gguf",
        chunk_size=CHUNK,
        threads=1,
        **options,  # type: ignore[arg-type]
    )
    assert report.output.is_file()
    return report.output


def test_the_file_has_the_keys_and_shapes_of_llama_imatrix(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(compute(model("mixtral", tmp_path), tmp_path, max_chunks=2))
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert {name: keys[name] for name in keys if not name.startswith("GGUF")} == {
        "general.type": "imatrix",
        "imatrix.datasets": ["text.txt"],
        "imatrix.chunk_count": 2,
        "imatrix.chunk_size": CHUNK,
    }
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    assert list(shapes) == sorted(
        shapes, key=lambda name: (name.rpartition(".")[0], name[-1] == "s")
    )
    assert shapes["blk.0.attn_q.weight.in_sum2"] == [32]
    assert shapes["blk.0.attn_q.weight.counts"] == [1]
    assert shapes["blk.0.ffn_up_exps.weight.in_sum2"] == [32, 3]
    assert shapes["blk.0.ffn_up_exps.weight.counts"] == [1, 3]


def test_types_that_need_a_matrix_can_be_had_with_it(tmp_path: Path) -> None:
    # Rows of 256, which the smallest types' blocks need.
    source = write_tiny_llama(tmp_path / "tiny.gguf", TinyLlama(n_embd=256, n_ff=256))
    small = tmp_path / "small.gguf"
    with pytest.raises(TypeChoiceError, match="without an importance matrix"):
        quantize(source, small, "Q2_K_S", threads=1)
    matrix = compute(source, tmp_path)
    report = quantize(source, small, "Q2_K_S", imatrix=matrix, threads=1)
    assert "Q2_K" in {tensor.target_type for tensor in report.tensors}
    assert all(check.passed for check in report.checks)


def test_progress_counts_chunks_and_ends_with_all(tmp_path: Path) -> None:
    told: list[ConversionProgress] = []
    compute(model("llama", tmp_path), tmp_path, max_chunks=2, progress=told.append)
    assert {step.stage for step in told} == {"reading the text"}
    assert [step.n_tensors_done for step in told] == [0, 1, 2]
    assert told[-1].n_bytes_done == told[-1].n_bytes == len(TEXT)


def test_experts_that_no_token_reached_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.convert import importance_run

    columns = {
        "blk.0.ffn_up_exps.weight": ColumnSums(np.ones((4, 8)), np.array([3, 0, 1, 0])),
        "blk.0.attn_q.weight": ColumnSums(np.ones((1, 8)), np.array([4])),
    }
    monkeypatch.setattr(
        importance_run, "read_in_chunks", lambda *_a, **_k: Reading(columns, 1, CHUNK)
    )
    (tmp_path / "text.txt").write_text(TEXT)
    output = tmp_path / "x.gguf"
    report = compute_importance(tmp_path / "any.gguf", tmp_path / "text.txt", output)
    assert "1 tensors have experts that no token was sent to (up to 2)" in report.warnings[0]
    weights = read_importance(output).entries["blk.0.ffn_up_exps.weight"].reshape(4, 8)
    assert weights[:, 0].tolist() == [pytest.approx(1 / 3), 1, 1, 1]


def test_values_that_are_not_finite_are_an_error_and_leave_no_file(tmp_path: Path) -> None:
    tensors = {**llama_tensors(CONFIG)}
    tensors["model.layers.0.input_layernorm.weight"] = np.full(64, 3e38, np.float32)
    source = tmp_path / "huge.gguf"
    checkpoint = write_checkpoint(tmp_path / "huge", tensors=tensors)
    convert(checkpoint, source, "F32", threads=1, verify=False)
    with pytest.raises(ImportanceError, match=r"flows into blk\.0\.attn_\w\.weight is not finite"):
        compute(source, tmp_path)
    assert not (tmp_path / "imatrix.gguf").exists()


def test_wrong_input_is_one_sentence_each(tmp_path: Path) -> None:
    path = model("llama", tmp_path)
    text, target = tmp_path / "text.txt", tmp_path / "x.gguf"
    with pytest.raises(ConversionError, match="cannot be read"):
        compute_importance(path, text, target)
    text.write_bytes(b"caf\xe9 " * 100)
    with pytest.raises(ConversionError, match="no UTF-8 text"):
        compute_importance(path, text, target)
    text.write_text("short")
    too_short = r"text\.txt: cannot be read so: .* 64, but the text has only \d+ tokens; .*--chunk"
    with pytest.raises(ImportanceError, match=too_short):
        compute_importance(path, text, target, chunk_size=64)
    with pytest.raises(ImportanceError, match=r"is 100000, but the model reads \d+ at most"):
        compute_importance(path, text, target, chunk_size=100_000)
    with pytest.raises(ImportanceError, match="is no GGUF file"):
        compute_importance(text, text, target)
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        compute_importance(path, text, target, chunk_size=0)
    target.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        compute_importance(path, text, target)
    assert target.read_text() == "precious"


def test_a_folder_that_takes_no_files_is_refused_before_the_model_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    nothing = tmp_path / "not-there.gguf"
    with pytest.raises(OutputError, match="takes no files"):
        compute_importance(nothing, nothing, tmp_path / "imatrix.gguf")
