"""The results that stay in the repository: the loss curve and the scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from .held_out import CATEGORIES, SINGLE_TURN, TOOLS
from .scoring import CategoryScore, markdown, pooled


def write_scores(scores: dict[str, CategoryScore], folder: Path, *, label: str, seed: int) -> None:
    """Write scores-LABEL.json and scores-LABEL.md; the JSON also tells the failures."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "weights": label,
        "seed": seed,
        "single_turn": round(pooled(scores, SINGLE_TURN), 4),
        "tools": round(pooled(scores, TOOLS), 4),
        "all": round(pooled(scores, CATEGORIES), 4),
        "categories": {
            c: {"right": s.right, "total": s.total, "failures": s.failures}
            for c, s in scores.items()
        },
    }
    stem = f"scores-{label.lower()}"
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / f"{stem}.json").write_text(text + "\n", encoding="utf-8")
    (folder / f"{stem}.md").write_text(markdown(scores, label) + "\n", encoding="utf-8")


def draw_curve(source: Path, target: Path) -> None:
    """Draw the loss over time from its CSV."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, axes = plt.subplots(figsize=(6, 3.2), dpi=100)
    axes.plot([float(r["tokens"]) / 1e6 for r in rows], [float(r["loss"]) for r in rows], lw=0.9)
    axes.set_yscale("log")
    axes.set_xlabel("million tokens")
    axes.set_ylabel("cross entropy")
    axes.grid(visible=True, which="both", alpha=0.25)
    figure.tight_layout()
    figure.savefig(target)
    plt.close(figure)
