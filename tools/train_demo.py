"""Train the demo checkpoint that the package carries.

    python tools/train_demo.py --minutes 55

writes the checkpoint to mofa_gguf/data/demo, the loss curve and the held-out scores to
tools/demo/results. Needs torch, tokenizers, safetensors, jinja2 and, for the picture, matplotlib.
The state is saved every two minutes to the work folder; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from demo import scoring
from demo.generation import TorchGenerator
from demo.model import DemoModel, ModelShape, load_model, save_model
from demo.results import draw_curve, write_scores
from demo.template import END_OF_TEXT, TURN_END
from demo.tokenizer import save_tokenizer, train_tokenizer
from demo.training import Recipe, Trainer
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "mofa_gguf" / "data" / "demo"
RESULTS = ROOT / "tools" / "demo" / "results"
HELD_OUT_SEED = 2


def export(model: DemoModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a checkpoint folder: every file is made aside and renamed into place."""
    folder.mkdir(parents=True, exist_ok=True)
    eos_ids = [tokenizer.token_to_id(t) for t in (TURN_END, END_OF_TEXT)]
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".demo-") as aside:
        save_tokenizer(tokenizer, Path(aside))
        save_model(model, Path(aside), eos_ids, eos_ids[1])
        for file in sorted(Path(aside).iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)


def evaluate(folder: Path, n_per_category: int) -> dict[str, scoring.CategoryScore]:
    """Score a checkpoint folder on held-out dialogues, in bf16 weights and greedy decoding."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    generator = TorchGenerator(load_model(folder), tokenizer)
    return scoring.score(generator.generate, seed=HELD_OUT_SEED, n_per_category=n_per_category)


def train(arguments: argparse.Namespace) -> None:
    """Make the tokenizer, train the model, export it and score it."""
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(minutes=arguments.minutes, seed=arguments.seed)
    torch.manual_seed(recipe.seed)
    if not (work / "tokenizer.json").exists():
        train_tokenizer(recipe.seed).save(str(work / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    model = DemoModel(ModelShape(tokenizer.get_vocab_size()))
    print(f"{model.n_parameters} parameters, vocabulary {tokenizer.get_vocab_size()}", flush=True)
    trainer = Trainer(model, tokenizer, recipe, work, n_threads=arguments.threads)
    if trainer.resume():
        print(f"goes on from step {trainer.step}", flush=True)

    def on_the_way(_: Trainer) -> None:
        export(model, tokenizer, arguments.output)
        scores = evaluate(arguments.output, arguments.quick_cases)
        print(scoring.one_line(scores), flush=True)

    trainer.run(on_the_way, export_every_s=arguments.export_minutes * 60)
    export(model, tokenizer, arguments.output)
    arguments.results.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(work / "loss.csv", arguments.results / "loss.csv")
    draw_curve(arguments.results / "loss.csv", arguments.results / "loss.png")


def main() -> None:
    """Train, or with --eval only score what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=55.0, help="training time, the budget")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "demo-training")
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--export-minutes", type=float, default=10.0)
    parser.add_argument("--quick-cases", type=int, default=10, help="cases a category on the way")
    parser.add_argument("--cases", type=int, default=100, help="cases a category at the end")
    parser.add_argument("--eval", action="store_true", help="score the output folder, do not train")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.eval:
        train(arguments)
    scores = evaluate(arguments.output, arguments.cases)
    write_scores(scores, arguments.results, label="BF16", seed=HELD_OUT_SEED)
    print(scoring.markdown(scores, "BF16"))


if __name__ == "__main__":
    main()
