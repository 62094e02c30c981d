"""Make tests/data/parity: tiny checkpoints, and what transformers computes with them.

    python tools/make_parity_fixtures.py [NAME ...]
    python tools/make_parity_fixtures.py --minilm FOLDER_OF_ALL_MINILM_L6_V2

Each folder gets a checkpoint (tools/make_checkpoints.py) and reference.npz with ``tokens`` and
``logits`` (float32, one row a token), or for encoders ``embedding``, the mean over the tokens.
Computed in float32 from the weights as they are stored. ``--minilm`` makes
tests/data/minilm_reference.npz instead: vectors of 20 sentences.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from make_checkpoints import make
from packed_weights import unpacked
from recipes import RECIPES, Recipe, seed_of
from recipes.recipe import N_VOCAB
from safetensors.torch import load_file

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
MINILM_LENGTH = 256
"""sentence_bert_config.json of all-MiniLM-L6-v2 cuts texts to this many tokens."""

SENTENCES = [
    "The cat sits on the mat.",
    "A dog is playing in the garden.",
    "How do I convert a checkpoint to GGUF?",
    "MoFA is a framework for building agents.",
    "def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)",
    "3.14159 is a rounded value of pi; 2 + 2 = 4.",
    "Stocks fell sharply on Tuesday after the central bank raised interest rates.",
    "It was a bright cold day, and all the clocks in town showed another hour.",
    "今天天气很好。",
    "人工智能正在改变世界。",
    "我想把模型转换成另一种格式，然后在本地运行。",
    "机器学习 and natural language processing 混合文本",
    "🙂🚀🎉",
    "I love pizza 🍕 and coffee ☕!",
    "Où est la bibliothèque ? Straße, naïve, façade.",
    "ALL CAPS AND    extra   spaces\tand\nnew lines",
    "a",
    "?!...",
    " ".join(f"word{i % 37} follows sentence number {i}" for i in range(120)),
    "",
]


def reference(folder: Path, recipe: Recipe, *, seed: int) -> None:
    """Write reference.npz of one checkpoint."""
    config = json.loads((folder / "config.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        source = folder
        if "quantization_config" in config:
            source = unpacked(folder, Path(scratch) / "floats")
        model_class = getattr(transformers, config["architectures"][0])
        attention = (
            {} if "Mamba" in config["architectures"][0] else {"attn_implementation": "eager"}
        )
        model = model_class.from_pretrained(source, dtype=torch.float32, **attention).eval()
    generator = np.random.default_rng(seed)
    # The tokenizers' last ids are ordinary tokens in all vocabularies.
    tokens = generator.integers(8, N_VOCAB, size=recipe.n_tokens)
    with torch.no_grad():
        ids = torch.from_numpy(tokens)[None]
        encoder = model.bert if hasattr(model, "bert") else model
        output = encoder(ids)
        if "logits" in output:
            values = {"logits": output.logits[0].numpy()}
        else:
            values = {"embedding": pooled(output.last_hidden_state[0], folder).numpy()}
    np.savez_compressed(folder / "reference.npz", tokens=tokens.astype(np.int32), **values)


def pooled(hidden: torch.Tensor, folder: Path) -> torch.Tensor:
    """The text's vector, not normalized: the mean, or as sentence-transformers' files say."""
    path = folder / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    is_last = settings.get("pooling_mode_lasttoken", False)
    vector = hidden[-1] if is_last else hidden.mean(dim=0)
    for dense in sorted(folder.glob("*_Dense/model.safetensors")):
        vector = load_file(dense)["linear.weight"] @ vector
    return vector


def minilm(folder: Path) -> None:
    """Vectors of the sentences: mean over the tokens, then length 1, as modules.json says."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    vectors, tokens = [], []
    with torch.no_grad():
        for sentence in SENTENCES:
            batch = tokenizer(
                sentence, truncation=True, max_length=MINILM_LENGTH, return_tensors="pt"
            )
            hidden = model(**batch).last_hidden_state[0]
            vector = hidden.mean(dim=0)
            vectors.append((vector / vector.norm()).numpy())
            tokens.append(batch["input_ids"][0].numpy())
    np.savez_compressed(
        DATA / "minilm_reference.npz",
        sentences=np.array(SENTENCES),
        vectors=np.stack(vectors),
        tokens=np.concatenate(tokens).astype(np.int32),
        lengths=np.array([len(ids) for ids in tokens], dtype=np.int32),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    parser.add_argument("--minilm", type=Path, help="folder of the all-MiniLM-L6-v2 checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if arguments.minilm:
        minilm(arguments.minilm)
        return
    for name in RECIPES:
        if arguments.names and name not in arguments.names:
            continue
        seed = seed_of(name)
        folder = DATA / "parity" / name
        # Made elsewhere first: a failure leaves no half of one.
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / name
            make(RECIPES[name], made, seed=seed)
            reference(made, RECIPES[name], seed=seed)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.move(made, folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
