"""Make tests/data/adapters: PEFT's LoRA adapters for parity fixtures, and what they make of them.

    python tools/make_adapters.py [NAME ...]

Needs torch, transformers and peft. Each folder gets adapter_config.json and
adapter_model.safetensors, written by peft, and reference.npz: ``tokens`` and the ``logits`` of
transformers with the adapter merged into the weights (float32). The base is the checkpoint of
tests/data/parity that base.txt names. Adapters of experts one by one, which transformers 5 no
longer has as modules, are written here as peft wrote them, and merged into the stored weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
N_TOKENS = 12
_LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class AdapterRecipe:
    """An adapter for one parity fixture."""

    base: str
    modules: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    by_hand: bool = False


RECIPES = {
    "llama": AdapterRecipe("llama", _LLAMA),
    "llama-head": AdapterRecipe(
        "llama", ["q_proj", "embed_tokens", "lm_head"], {"use_rslora": True, "r": 3}
    ),
    "llama-patterns": AdapterRecipe(
        "llama",
        ["q_proj", "v_proj", "down_proj"],
        {
            "alpha_pattern": {"v_proj": 9, "layers.0.mlp.down_proj": 1},
            "rank_pattern": {"q_proj": 4},
        },
    ),
    "qwen2": AdapterRecipe("qwen2", _LLAMA, {"use_rslora": True}),
    "qwen3": AdapterRecipe("qwen3", _LLAMA),
    "gemma": AdapterRecipe("gemma", _LLAMA),
    "gemma3": AdapterRecipe("gemma3", ["q_proj", "v_proj", "down_proj"]),
    "gpt2": AdapterRecipe("gpt2", ["c_attn", "c_proj", "c_fc"], {"fan_in_fan_out": True}),
    "falcon-groups": AdapterRecipe("falcon-groups", ["query_key_value", "dense_h_to_4h"]),
    "phi3": AdapterRecipe("phi3", ["qkv_proj", "gate_up_proj", "down_proj"]),
    "mixtral": AdapterRecipe("mixtral", ["w1", "w2", "w3", "q_proj", "k_proj"], by_hand=True),
}


def with_peft(recipe: AdapterRecipe, folder: Path) -> torch.nn.Module:
    """Write the adapter with peft; the merged model."""
    config = LoraConfig(
        **{"r": 2, "lora_alpha": 5, "target_modules": recipe.modules, **recipe.options},
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(load(DATA / "parity" / recipe.base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    saved = {**json.loads(path.read_text()), "base_model_name_or_path": f"tiny/{recipe.base}"}
    path.write_text(json.dumps(saved, indent=2))
    return model.merge_and_unload()


def by_hand(recipe: AdapterRecipe, folder: Path) -> torch.nn.Module:
    """Write the adapter and merge it into a copy of the stored weights."""
    rank, alpha = 2, 5
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": recipe.modules}
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    halves = {}
    with tempfile.TemporaryDirectory() as scratch:
        merged = Path(scratch) / "merged"
        shutil.copytree(DATA / "parity" / recipe.base, merged)
        weights = load_file(merged / "model.safetensors")
        for name in sorted(weights):
            module = name.removesuffix(".weight")
            if module.rpartition(".")[2] in recipe.modules:
                rows, columns = weights[name].shape
                a, b = torch.randn(rank, columns) * 0.3, torch.randn(rows, rank) * 0.3
                halves[f"base_model.model.{module}.lora_A.weight"] = a
                halves[f"base_model.model.{module}.lora_B.weight"] = b
                weights[name] = weights[name].float() + alpha / rank * (b @ a)
        save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
        save_file(halves, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return load(merged)


def load(folder: Path) -> torch.nn.Module:
    """A checkpoint in float32."""
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    model_class = getattr(transformers, name)
    return model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    wanted = parser.parse_args().names or list(RECIPES)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in wanted:
        recipe = RECIPES[name]
        folder = DATA / "adapters" / name
        shutil.rmtree(folder, ignore_errors=True)
        # By name, not by place in the table: a new recipe leaves the others as they are.
        seed = int.from_bytes(name.encode(), "little") % 2**31
        torch.manual_seed(seed)
        model = (by_hand if recipe.by_hand else with_peft)(recipe, folder).eval()
        tokens = np.random.default_rng(seed).integers(8, 320, size=N_TOKENS).astype(np.int32)
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens).long()[None]).logits[0].numpy()
        np.savez_compressed(folder / "reference.npz", tokens=tokens, logits=logits)
        (folder / "base.txt").write_text(f"{recipe.base}\n")
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
