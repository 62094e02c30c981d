"""Make tiny checkpoints whose configurations have other values than usual, option by option.

    python tools/make_odd_configs.py [NAME ...] --out FOLDER
    python -m tools.compare_odd_configs FOLDER

The first needs torch and transformers (tools/make_checkpoints.py), the second only the project.
Each recipe of tools/recipes is varied by tools/odd_values.py, one option at a time; what
transformers itself refuses is left out. Weights are in float32 and large enough for an option that
is forgotten to show. Beside each checkpoint lies reference.npz, as in tests/data/parity, and one
checkpoint of each recipe, "bare", names nothing in its config.json that is a default.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from make_parity_fixtures import pooled
from odd_values import Values, changes
from recipes import RECIPES, Recipe
from recipes.recipe import N_VOCAB
from tiny_tokenizers import TOKENIZERS

N_TOKENS = 40
# How the configuration classes and the models take values that they cannot use.
REFUSALS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NameError),
    *(RuntimeError, TypeError, ValueError, StrictDataclassError),
)


def filled(model: Any) -> Any:
    """The model with weights that depend on nothing but their names and shapes."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = ("norm" in name.lower() or ".ln_" in name) and name.endswith("weight")
            is_matrix = parameter.ndim >= 2 and not name.endswith("A_log")
            if is_norm:
                parameter.copy_(1 + 0.2 * noise)
            elif not is_matrix:
                parameter.copy_(0.2 * noise)
            elif any(part in name for part in ("embed", "wte", "conv")):
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise * 1.3 / parameter.shape[-1] ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith(("e_score_correction_bias", "expert_bias")):
                buffer.copy_(torch.randn(buffer.shape) * 0.1)
            elif name.endswith("layer_scalar"):
                buffer.copy_(1 + torch.randn(buffer.shape) * 0.1)
    return model


def write(recipe: Recipe, config: Values, folder: Path, *, nulls: Values) -> None:
    """One checkpoint with its reference. Raises whatever transformers raises at the values.

    ``nulls`` are written as such, also where transformers puts a default in their place.
    """
    torch.manual_seed(0)
    model_class = getattr(transformers, recipe.model_class)
    settings = model_class.config_class(**copy.deepcopy(config))
    if "Mamba" not in recipe.model_class:
        settings._attn_implementation = "eager"
    model = filled(model_class(settings).float().eval())
    tokens = np.random.default_rng(3).integers(8, N_VOCAB, size=min(N_TOKENS, recipe.n_tokens * 2))
    folder.mkdir(parents=True)
    model.save_pretrained(folder, save_original_format=recipe.original_format)
    with torch.no_grad():
        encoder = model.bert if hasattr(model, "bert") else model
        output = encoder(torch.from_numpy(tokens)[None])
    if "logits" in output:
        values = {"logits": output.logits[0].numpy()}
    else:
        values = {"embedding": pooled(output.last_hidden_state[0], folder).numpy()}
    if not all(np.isfinite(value).all() for value in values.values()):
        raise ValueError("the reference is not finite")
    np.savez(folder / "reference.npz", tokens=tokens.astype(np.int32), **values)
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    (stored["text_config"] if "text_config" in config else stored).update(nulls)
    path.write_text(json.dumps(stored, indent=1))


def write_bare(base: Path, folder: Path, defaults: Values) -> None:
    """The same checkpoint without what config.json need not say."""
    shutil.copytree(base, folder)
    path = folder / "config.json"
    needed = {"architectures", "model_type", "vocab_size", "text_config"}
    stored = json.loads(path.read_text())
    absent = object()
    kept = {k: v for k, v in stored.items() if k in needed or defaults.get(k, absent) != v}
    path.write_text(json.dumps(kept, indent=1))


def make_all(name: str, out: Path) -> tuple[int, int]:
    """Everything of one recipe; how many were made, and how many transformers refused."""
    recipe = RECIPES[name]
    model_class = getattr(transformers, recipe.model_class)
    nested = "text_config" in recipe.config
    config = model_class.config_class(**copy.deepcopy(recipe.config))
    found = list(changes((config.get_text_config() if nested else config).to_dict()))
    n_made = n_refused = 0
    for tag, values in [("base", {}), *found]:
        changed = copy.deepcopy(recipe.config)
        (changed["text_config"] if nested else changed).update(values)
        folder = out / name / re.sub(r"[^\w.,=-]+", "", tag)[:80]
        shutil.rmtree(folder, ignore_errors=True)
        nulls = {key: None for key, value in values.items() if value is None}
        try:
            write(recipe, changed, folder, nulls=nulls)
        except REFUSALS:
            shutil.rmtree(folder, ignore_errors=True)
            n_refused += 1
            continue
        TOKENIZERS[recipe.tokenizer](folder)
        n_made += 1
    base, bare = out / name / "base", out / name / "bare"
    shutil.rmtree(bare, ignore_errors=True)
    if base.exists():
        write_bare(base, bare, model_class.config_class().to_dict())
    return n_made, n_refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which recipes; all by default")
    parser.add_argument("--out", type=Path, default=Path("odd-configs"))
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(RECIPES))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(RECIPES)}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in arguments.names or RECIPES:
        if RECIPES[name].packing:
            continue
        n_made, n_refused = make_all(name, arguments.out)
        print(f"{name}: {n_made} made, {n_refused} refused by transformers", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
