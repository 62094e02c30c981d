"""Training by the clock: fresh dialogues, length-sorted batches, Muon and AdamW, resumable."""

from __future__ import annotations

import csv
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .dialogues import Mixture, training_dialogue
from .model import DemoModel
from .tokenizer import encode_dialogue

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encoded = tuple[list[int], list[bool]]


@dataclass(frozen=True)
class Recipe:
    """What a training run does."""

    minutes: float = 55.0
    seed: int = 20261122
    tokens_per_step: int = 6144
    tokens_per_pass: int = 2048
    muon_rate: float = 0.01
    adamw_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup_steps: int = 60
    decay_share: float = 0.35
    prompt_weight: float = 0.1
    prompt_share: float = 0.15
    save_every_s: float = 120.0
    log_every: int = 20


def mixture_at(progress: float) -> Mixture:
    """Short dialogues without tools first, then ever more tools and turns."""
    ramp = min(1.0, progress / 0.2)
    return Mixture(
        tools=0.15 + 0.35 * ramp, system=0.1 + 0.2 * ramp, max_exchanges=2 + round(4 * ramp)
    )


def rate_at(progress: float, step: int, recipe: Recipe) -> float:
    """The share of the learning rate: a short warm-up, a plateau, a linear descent to zero."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    left = max(0.0, 1.0 - progress) / recipe.decay_share
    return warm * min(1.0, left)


def batches(encoded: list[Encoded], tokens_per_pass: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut a step's dialogues into padded passes of similar length: ids and assistant mask."""
    rest = sorted(encoded, key=lambda pair: len(pair[0]))
    while rest:
        width = len(rest[-1][0])
        n_rows = max(1, tokens_per_pass // width)
        part, rest = rest[-n_rows:], rest[:-n_rows]
        ids = torch.zeros(len(part), width, dtype=torch.long)
        mask = torch.zeros(len(part), width)
        for row, (tokens, written) in enumerate(part):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = torch.tensor(written, dtype=torch.float)
        yield ids, mask


def pass_loss(model: DemoModel, ids: Tensor, mask: Tensor, prompt_weight: float) -> Tensor:
    """The summed cross entropy of what the assistant writes, and lightly of the prompt.

    Padding is token 0, which no dialogue contains.
    """
    targets = ids[:, 1:]
    weights = mask[:, 1:]
    if prompt_weight:
        weights = torch.where(weights > 0, weights, prompt_weight * (targets != 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden, _ = model.hidden(ids[:, :-1])
        chosen = weights > 0
        logits = model.logits(hidden[chosen])
    losses = F.cross_entropy(logits.float(), targets[chosen], reduction="none")
    return (losses * weights[chosen]).sum()


def make_optimizers(model: DemoModel, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) for the layers' matrices, AdamW for the rest.

    Two of Muon, so that two threads can share its work.
    """
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    rate, decay = recipe.muon_rate, recipe.weight_decay
    return [
        torch.optim.Muon(matrices[0::2], lr=rate, weight_decay=decay),
        torch.optim.Muon(matrices[1::2], lr=rate, weight_decay=decay),
        torch.optim.AdamW(others, lr=recipe.adamw_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


class Trainer:
    """One training run with its state on disk, so that an interruption loses two minutes."""

    def __init__(
        self, model: DemoModel, tokenizer: Tokenizer, recipe: Recipe, work: Path, n_threads: int = 2
    ) -> None:
        self.model, self.tokenizer, self.recipe, self.work = model, tokenizer, recipe, work
        self.optimizers = make_optimizers(model, recipe)
        self.parameters = list(model.parameters())
        # Passes run side by side, one thread each, so no operation waits for the other core.
        self.pool = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))
        torch.set_num_threads(1)
        self.rates = [group["lr"] for o in self.optimizers for group in o.param_groups]
        self.step, self.tokens, self.trained_s = 0, 0, 0.0
        self.curve: list[tuple[float, ...]] = []

    @property
    def progress(self) -> float:
        """The share of the time budget that is used."""
        return self.trained_s / (60 * self.recipe.minutes)

    def _dialogues(self) -> list[Encoded]:
        """The dialogues of this step, drawn from the seed and the step: resuming repeats none."""
        rng = random.Random(f"{self.recipe.seed}:{self.step}")
        mixture = mixture_at(self.progress)
        encoded: list[Encoded] = []
        n_tokens = 0
        while n_tokens < self.recipe.tokens_per_step:
            encoded.append(encode_dialogue(training_dialogue(rng, mixture), self.tokenizer))
            n_tokens += len(encoded[-1][0])
        return encoded

    def _gradients(
        self, ids: Tensor, mask: Tensor, prompt: float, total: float
    ) -> tuple[float, Sequence[Tensor]]:
        loss = pass_loss(self.model, ids, mask, prompt) / total
        return loss.item(), torch.autograd.grad(loss, self.parameters)

    def _train_step(self) -> float:
        encoded = self._dialogues()
        prompt = self.recipe.prompt_weight if self.progress < self.recipe.prompt_share else 0.0
        total = sum(sum(mask) + prompt * (len(mask) - sum(mask)) for _, mask in encoded)
        passes = list(batches(encoded, self.recipe.tokens_per_pass))
        summed = 0.0
        for loss, gradients in self.pool.map(lambda p: self._gradients(*p, prompt, total), passes):
            summed += loss
            if self.parameters[0].grad is None:
                for parameter, gradient in zip(self.parameters, gradients, strict=True):
                    parameter.grad = gradient
            else:
                torch._foreach_add_([p.grad for p in self.parameters], gradients)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        share = rate_at(self.progress, self.step, self.recipe)
        groups = [group for o in self.optimizers for group in o.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * share
        list(self.pool.map(lambda optimizer: optimizer.step(), self.optimizers))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += sum(len(ids) for ids, _ in encoded)
        if not math.isfinite(summed):
            raise RuntimeError(f"the loss is {summed} at step {self.step}; lower the learning rate")
        return summed

    def run(self, export: Callable[[Trainer], None], export_every_s: float = 600.0) -> None:
        """Train until the time budget is used; log, save and export on the way."""
        started, before = time.monotonic(), self.trained_s
        saved = exported = started
        losses: list[float] = []
        while self.progress < 1.0:
            losses.append(self._train_step())
            now = time.monotonic()
            self.trained_s = before + now - started
            if self.step % self.recipe.log_every == 0:
                self._log(losses)
                losses = []
            if now - saved > self.recipe.save_every_s:
                self.save()
                saved = now
            if now - exported > export_every_s:
                export(self)
                exported = now
        self.save()

    def _log(self, losses: list[float]) -> None:
        loss = sum(losses) / len(losses)
        self.curve.append((self.step, round(self.trained_s, 1), self.tokens, round(loss, 5)))
        print(
            f"step {self.step} {self.trained_s / 60:.1f} min {self.tokens / 1e6:.2f} M tokens "
            f"{self.tokens / max(self.trained_s, 1e-9):.0f} tokens/s loss {loss:.4f}",
            flush=True,
        )

    def save(self) -> None:
        """Write the whole state aside and rename it into place."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "step": self.step,
            "tokens": self.tokens,
            "trained_s": self.trained_s,
            "curve": self.curve,
        }
        target = self.work / "state.pt"
        torch.save(state, target.with_suffix(".part"))
        target.with_suffix(".part").replace(target)
        self.write_curve(self.work / "loss.csv")

    def resume(self) -> bool:
        """Take up the saved state, if there is one."""
        target = self.work / "state.pt"
        if not target.exists():
            return False
        state = torch.load(target, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tokens = state["step"], state["tokens"]
        self.trained_s, self.curve = state["trained_s"], state["curve"]
        return True

    def write_curve(self, path: Path) -> None:
        """The loss over time as CSV."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("step", "seconds", "tokens", "loss"))
            writer.writerows(self.curve)
