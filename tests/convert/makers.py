"""Makes small checkpoints without torch: safetensors files byte by byte, random Llamas."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

PARITY = Path(__file__).resolve().parents[1] / "data" / "parity"
N_VOCAB = 320
"""Tokens of the tokenizer in the parity fixtures."""

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64"}

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": N_VOCAB,
}

Tensors = dict[str, npt.NDArray[Any]]


def safetensors_bytes(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A safetensors file; uint16 arrays are taken for BF16."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data, offset = [], 0
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(raw)],
        }
        data.append(raw)
        offset += len(raw)
    return raw_safetensors(header, b"".join(data))


def raw_safetensors(header: object, data: bytes) -> bytes:
    """A file with any header, sound or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def llama_tensors(config: Mapping[str, Any], *, seed: int = 0) -> Tensors:
    """Random float32 weights of a Llama."""
    random = np.random.default_rng(seed)
    width, inner, vocab = (
        config[name] for name in ("hidden_size", "intermediate_size", "vocab_size")
    )
    kv = width // config["num_attention_heads"] * config["num_key_value_heads"]

    def matrix(*shape: int) -> npt.NDArray[np.float32]:
        return (random.standard_normal(shape) * 0.1).astype(np.float32)

    tensors: Tensors = {"model.embed_tokens.weight": matrix(vocab, width)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        tensors[f"{layer}.input_layernorm.weight"] = 1 + matrix(width)
        tensors[f"{layer}.post_attention_layernorm.weight"] = 1 + matrix(width)
        tensors[f"{layer}.self_attn.q_proj.weight"] = matrix(width, width)
        tensors[f"{layer}.self_attn.k_proj.weight"] = matrix(kv, width)
        tensors[f"{layer}.self_attn.v_proj.weight"] = matrix(kv, width)
        tensors[f"{layer}.self_attn.o_proj.weight"] = matrix(width, width)
        tensors[f"{layer}.mlp.gate_proj.weight"] = matrix(inner, width)
        tensors[f"{layer}.mlp.up_proj.weight"] = matrix(inner, width)
        tensors[f"{layer}.mlp.down_proj.weight"] = matrix(width, inner)
    tensors["model.norm.weight"] = 1 + matrix(width)
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(vocab, width)
    return tensors


def write_checkpoint(
    folder: Path, *, tensors: Tensors | None = None, seed: int = 0, **config: Any
) -> Path:
    """A Llama checkpoint with a tokenizer; ``config`` replaces values, None removes one."""
    values = {name: value for name, value in {**CONFIG, **config}.items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    weights = llama_tensors({**CONFIG, **config}, seed=seed) if tensors is None else tensors
    (folder / "model.safetensors").write_bytes(safetensors_bytes(weights))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PARITY / "llama" / name, folder / name)
    return folder


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves: float32 cut off to bfloat16."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


Change = Callable[[dict[str, Any]], object]


def changed_fixture(
    name: str, folder: Path, change: Change, *, tensors: Change | None = None
) -> Path:
    """A copy of a parity fixture with another config.json and, where asked, other tensors."""
    target = folder / name
    shutil.copytree(PARITY / name, target, dirs_exist_ok=True)
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        weights = load_file(target / "model.safetensors")
        tensors(weights)
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target
