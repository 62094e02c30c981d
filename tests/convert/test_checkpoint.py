"""A folder is opened with bounds: nothing outside it, nothing pickled, nothing missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert.checkpoint import inside, open_checkpoint
from mofa_gguf.convert.errors import (
    BadTensor,
    CheckpointError,
    PickleRefused,
    QuantizedCheckpoint,
)
from tests.convert.makers import PARITY, safetensors_bytes, write_checkpoint

A = {"a": np.arange(4, dtype=np.float32)}
B = {"b": np.arange(2, dtype=np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder without weights."""
    path = tmp_path / "checkpoint"
    path.mkdir()
    (path / "config.json").write_text('{"architectures": ["X"]}')
    return path


def write_index(folder: Path, weight_map: object) -> None:
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


def write_shards(folder: Path) -> None:
    for number, tensors in ((1, A), (2, B)):
        path = folder / f"model-0000{number}-of-00002.safetensors"
        path.write_bytes(safetensors_bytes(tensors))


def test_one_file_is_read(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(safetensors_bytes({**A, **B}))
    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.tensors) == ["a", "b"]
        assert checkpoint.array("a").tolist() == [0, 1, 2, 3]
        assert checkpoint.n_bytes == 24


def test_indexed_shards_are_read(folder: Path) -> None:
    write_shards(folder)
    write_index(
        folder,
        {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    )
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.array("b").tolist() == [0, 1]
        assert checkpoint.file_of("b").name == "model-00002-of-00002.safetensors"


def test_numbered_shards_without_an_index_must_be_complete(folder: Path) -> None:
    write_shards(folder)
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == {"a", "b"}
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="shard 1 of 2 is missing"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    write_index(folder, {"a": "model-00001-of-00002.safetensors"})
    with pytest.raises(CheckpointError, match=r"model-00001-of-00002\.safetensors is missing"):
        open_checkpoint(folder)


def test_a_tensor_that_the_index_promises_must_be_there(folder: Path) -> None:
    write_shards(folder)
    write_index(folder, {"c": "model-00001-of-00002.safetensors"})
    with pytest.raises(BadTensor, match="not in this shard") as caught:
        open_checkpoint(folder)
    assert caught.value.tensor == "c"


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    for number in (1, 2):
        path = folder / f"model-0000{number}-of-00002.safetensors"
        path.write_bytes(safetensors_bytes(A))
    with pytest.raises(BadTensor, match="is in both"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, "x", {"a": 3}, {"a": None}], ids=lambda value: repr(value)
)
def test_an_index_without_a_sound_weight_map_is_refused(folder: Path, weight_map: object) -> None:
    write_index(folder, weight_map)
    with pytest.raises(CheckpointError, match=r"weight_map|names no file"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "x/../../y", "", "a\0b"])
def test_an_index_cannot_lead_out_of_the_folder(folder: Path, name: str) -> None:
    (folder.parent / "outside.safetensors").write_bytes(safetensors_bytes(A))
    write_index(folder, {"a": name})
    with pytest.raises(CheckpointError, match="out of the folder"):
        open_checkpoint(folder)


def test_a_link_cannot_lead_out_of_the_folder(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    outside.write_bytes(safetensors_bytes(A))
    (folder / "model.safetensors").symlink_to(outside)
    with pytest.raises(CheckpointError, match="link that leads out"):
        open_checkpoint(folder)


def test_a_link_to_itself_is_refused(folder: Path) -> None:
    (folder / "loop").symlink_to(folder / "loop")
    write_index(folder, {"a": "loop"})
    with pytest.raises(CheckpointError):
        open_checkpoint(folder)


def test_the_links_of_the_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    blobs = tmp_path / "models--org--name" / "blobs"
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, content in (
        ("config.json", b"{}"),
        ("model.safetensors", safetensors_bytes(A)),
    ):
        (blobs / name).write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    with open_checkpoint(snapshot) as checkpoint:
        assert list(checkpoint.tensors) == ["a"]
    with pytest.raises(CheckpointError, match="out of the folder"):
        inside(snapshot, "../../blobs/config.json")


def test_only_pickled_weights_are_refused_with_what_to_do(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(PickleRefused, match="save_pretrained"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("present", "reason"),
    [
        ([], "no weights"),
        (["adapter_model.safetensors"], "LoRA adapter"),
        (["consolidated.safetensors"], "save_pretrained"),
    ],
)
def test_missing_weights_are_explained(folder: Path, present: list[str], reason: str) -> None:
    for name in present:
        (folder / name).write_bytes(safetensors_bytes(A))
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(folder)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors"])
def test_quantized_checkpoints_are_refused_by_name(folder: Path, method: str) -> None:
    config = {"architectures": ["X"], "quantization_config": {"quant_method": method}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(A))
    with pytest.raises(QuantizedCheckpoint, match=method) as caught:
        open_checkpoint(folder)
    assert caught.value.method == method


@pytest.mark.parametrize(
    ("config", "files", "method"),
    [
        ({"compression_config": {"format": "pack-quantized"}}, {}, "compressed-tensors"),
        ({"quantization_config": {"bits": 4}}, {}, "unknown method"),
        ({}, {"quantize_config.json": b"{}"}, "gptq or awq"),
        ({}, {"hf_quant_config.json": b"{}"}, "modelopt"),
    ],
)
def test_quantized_checkpoints_are_known_by_what_lies_beside_the_weights(
    folder: Path, config: dict[str, object], files: dict[str, bytes], method: str
) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": ["X"], **config}))
    (folder / "model.safetensors").write_bytes(safetensors_bytes(A))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(QuantizedCheckpoint, match="convert the 16-bit checkpoint") as caught:
        open_checkpoint(folder)
    assert caught.value.method == method


@pytest.mark.parametrize(
    ("tensor", "method"),
    [
        ("q_proj.qweight", "gptq or awq"),
        ("q_proj.qzeros", "gptq or awq"),
        ("q_proj.weight.absmax", "bitsandbytes"),
        ("q_proj.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("q_proj.SCB", "bitsandbytes"),
        ("q_proj.weight_packed", "compressed-tensors"),
        ("q_proj.W_q", "hqq"),
    ],
)
def test_quantized_checkpoints_are_known_by_their_tensors(
    folder: Path, tensor: str, method: str
) -> None:
    (folder / "model.safetensors").write_bytes(
        safetensors_bytes({f"model.layers.0.{tensor}": A["a"]})
    )
    with pytest.raises(QuantizedCheckpoint) as caught:
        open_checkpoint(folder)
    assert caught.value.method == method


@pytest.mark.parametrize("name", ["x" * 256, "ü" * 200, "/".join(["abc"] * 300)])
def test_an_index_with_a_name_that_no_file_can_have_is_refused(folder: Path, name: str) -> None:
    write_index(folder, {"a": name})
    with pytest.raises(CheckpointError, match="too long to be a file's") as caught:
        open_checkpoint(folder)
    assert len(str(caught.value)) < 400


def test_a_shard_that_is_a_folder_or_a_broken_link_is_refused(folder: Path) -> None:
    write_index(folder, {"a": "shard.safetensors"})
    (folder / "shard.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="no regular file"):
        open_checkpoint(folder)
    (folder / "shard.safetensors").rmdir()
    (folder / "shard.safetensors").symlink_to(folder / "nothing")
    with pytest.raises(CheckpointError, match="is missing"):
        open_checkpoint(folder)


def test_an_index_of_too_many_shards_is_refused_before_any_is_opened(folder: Path) -> None:
    write_index(folder, {f"t{i}": f"{i}.safetensors" for i in range(10_001)})
    with pytest.raises(CheckpointError, match="10001 shards; at most 10000"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b"", "no valid JSON"),
        (b"[]", "does not hold a JSON object"),
        (b"\xff", "no valid JSON"),
        (b"[" * 50_000, "nested"),
        (b'{"quantization_config": 3}', "must be an object"),
    ],
)
def test_a_broken_config_is_refused(folder: Path, content: bytes, reason: str) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        open_checkpoint(folder)


def test_the_fingerprint_follows_configuration_and_layout(tmp_path: Path) -> None:
    def fingerprint(name: str, **config: Any) -> str:
        with open_checkpoint(write_checkpoint(tmp_path / name, **config)) as checkpoint:
            return checkpoint.fingerprint()

    assert fingerprint("one") == fingerprint("two")
    assert fingerprint("three", rope_theta=5.0) != fingerprint("one")
    assert fingerprint("four", vocab_size=321) != fingerprint("one")


def test_the_fingerprint_follows_the_modules_of_sentence_transformers(tmp_path: Path) -> None:
    def fingerprint() -> str:
        with open_checkpoint(folder) as checkpoint:
            return checkpoint.fingerprint()

    folder = tmp_path / "embedder"
    shutil.copytree(PARITY / "gemma-embedding", folder)
    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    dense = next(folder.glob("*_Dense/model.safetensors"))
    changes = {
        dense: safetensors_bytes({"linear.weight": np.zeros((3, 5), dtype=np.float32)}),
        dense.parent / "config.json": b"{}",
        folder / "1_Pooling" / "config.json": b'{"pooling_mode_cls_token": true}',
        folder / "modules.json": b"[]",
    }
    for path, content in changes.items():
        path.write_bytes(content)
        seen.append(fingerprint())
    assert len(set(seen)) == len(changes) + 1
