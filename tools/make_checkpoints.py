"""Make tiny checkpoints with random weights, as transformers writes them.

    python tools/make_checkpoints.py --list
    python tools/make_checkpoints.py llama-gqa qwen2 --out FOLDER

For tests of the converter: every norm and bias is random too, so that a forgotten one shows. What
there is stands in tools/recipes. Needs torch, transformers, tokenizers and sentencepiece, which the
project itself does not.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import safetensors.torch
import torch
import transformers
from packed_weights import PACKINGS
from recipes import RECIPES, Recipe
from tiny_tokenizers import TOKENIZERS, write_json


def make(recipe: Recipe, folder: Path, *, seed: int = 0) -> None:
    """Write one checkpoint into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model_class = getattr(transformers, recipe.model_class)
    model = model_class(model_class.config_class(**recipe.config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape) * 0.1
            is_norm = ("norm" in name.lower() or ".ln_" in name) and name.endswith("weight")
            parameter.copy_(1 + noise if is_norm else noise)
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias")):
                buffer.copy_(torch.randn(buffer.shape) * 0.1)
            elif name.endswith("layer_scalar"):
                buffer.copy_(1 + torch.randn(buffer.shape) * 0.1)
    model.to(getattr(torch, recipe.dtype))
    model.save_pretrained(
        folder, max_shard_size=recipe.shard_size, save_original_format=recipe.original_format
    )
    if recipe.pooling:
        _sentence_transformer(recipe, folder, model.config.hidden_size)
    if recipe.packing:
        PACKINGS[recipe.packing](folder)
    if recipe.old_rope:
        _write_old_rope(folder / "config.json")
    TOKENIZERS[recipe.tokenizer](folder)


def _sentence_transformer(recipe: Recipe, folder: Path, width: int) -> None:
    """modules.json, the pooling and the matrices, as sentence-transformers saves them."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    for i, rows in enumerate(recipe.dense):
        name = f"{i + 2}_Dense"
        modules.append(("Dense", name))
        (folder / name).mkdir()
        weights = {"linear.weight": torch.randn(rows, width) * 0.1}
        safetensors.torch.save_file(weights, folder / name / "model.safetensors")
        settings = {"in_features": width, "out_features": rows, "bias": False}
        activation = "torch.nn.modules.linear.Identity"
        write_json(folder / name / "config.json", {**settings, "activation_function": activation})
        width = rows
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate([*modules, ("Normalize", "9_Normalize")])
        ],
    )
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {f"pooling_mode_{recipe.pooling}": True})


def _write_old_rope(path: Path) -> None:
    config = json.loads(path.read_text())
    settings = config.pop("rope_parameters")
    config["rope_theta"] = settings.pop("rope_theta")
    # The oldest configurations say "type".
    kind = settings.pop("rope_type")
    config["rope_scaling"] = {"type" if kind == "linear" else "rope_type": kind, **settings}
    path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"))
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(RECIPES))
        return
    unknown = sorted(set(arguments.names) - set(RECIPES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(RECIPES)}")
    random.seed(0)
    for name in arguments.names or RECIPES:
        make(RECIPES[name], arguments.out / name)
        print(arguments.out / name)


if __name__ == "__main__":
    main()
