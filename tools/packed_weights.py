"""Store a checkpoint's weights in fewer bits, as DeepSeek and OpenAI do; and back, with torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BLOCK = (12, 16)  # neither divides all sizes of the tiny models
_NOT_PACKED = ("norm", "embed", "lm_head", "bias", ".mlp.gate.")
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def pack_fp8(folder: Path) -> None:
    """Every matrix but the embeddings and routers as F8_E4M3 with a scale a block."""
    tensors = load_file(folder / "model.safetensors")
    packed = {}
    for name, weights in tensors.items():
        packed[name] = weights
        if weights.ndim == 2 and not any(part in name for part in _NOT_PACKED):
            factors = _blockwise(weights.float())
            packed[name] = (weights.float() / _spread(factors, weights)).to(torch.float8_e4m3fn)
            packed[f"{name}_scale_inv"] = factors
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    _set_config(
        folder,
        {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": list(BLOCK),
        },
    )


def _blockwise(weights: torch.Tensor) -> torch.Tensor:
    rows, columns = BLOCK
    return torch.stack(
        [
            torch.stack([part.abs().max() / 448 for part in band.split(columns, dim=1)])
            for band in weights.split(rows)
        ]
    )


def _spread(factors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    spread = factors.repeat_interleave(BLOCK[0], 0).repeat_interleave(BLOCK[1], 1)
    return spread[: weights.shape[0], : weights.shape[1]]


def pack_mxfp4(folder: Path) -> None:
    """The experts of a gpt-oss as blocks of four bits, with random codes and scales."""
    tensors = load_file(folder / "model.safetensors")
    packed = {}
    for name, weights in tensors.items():
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            n_experts, n_in, n_out = weights.shape
            shape = (n_experts, n_out, n_in // 32)
            packed[f"{name}_blocks"] = torch.randint(256, (*shape, 16), dtype=torch.uint8)
            packed[f"{name}_scales"] = torch.randint(121, 125, shape, dtype=torch.uint8)
        else:
            packed[name] = weights
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    _set_config(folder, {"quant_method": "mxfp4"})


def _set_config(folder: Path, quantization: dict[str, object]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = quantization
    path.write_text(json.dumps(config, indent=2) + "\n")


def unpacked(folder: Path, target: Path) -> Path:
    """A copy whose packed weights are floats again."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (target / "config.json").write_text(json.dumps({**config, "dtype": "float32"}))
    tensors = load_file(folder / "model.safetensors")
    floats = {}
    for name, weights in tensors.items():
        if f"{name}_scale_inv" in tensors:
            floats[name] = weights.float() * _spread(tensors[f"{name}_scale_inv"], weights)
        elif name.endswith("_blocks"):
            floats[name.removesuffix("_blocks")] = _values(
                weights, tensors[name.removesuffix("_blocks") + "_scales"]
            )
        elif not name.endswith(("_scale_inv", "_scales")):
            floats[name] = weights.float()
    save_file(floats, target / "model.safetensors", metadata={"format": "pt"})
    return target


def _values(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    table = torch.tensor([*_E2M1, *(-value for value in _E2M1)])
    codes = torch.stack([blocks & 0x0F, blocks >> 4], dim=-1).flatten(-2)
    values = table[codes.long()] * torch.exp2(scales.float() - 127)[..., None]
    return values.flatten(-2).transpose(1, 2).contiguous()


PACKINGS = {"fp8": pack_fp8, "mxfp4": pack_mxfp4}
