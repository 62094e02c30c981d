"""How far a quantized file's predictions are from those of the unquantized weights.

The measures are those of llama.cpp's perplexity tool: the Kullback-Leibler divergence of the
distributions over the next token, how often both find the same token most likely, and the ratio of
the perplexities. Texts are computed in windows, each from an empty cache, and of each only one
window's numbers are in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.errors import ConversionError
from mofa_gguf.engine.models.logits import Probe

MAX_TEXT_BYTES = 1_000_000
MAX_TOKENS = 4096
_MEAN = 1  # llama.h, LLAMA_POOLING_TYPE_MEAN
_WINDOW = 256
_WINDOW_NUMBERS = 2**25
"""Logits of a window, 128 MB for each of the two models, whatever the vocabulary's size."""


@dataclass(frozen=True)
class Comparison:
    """A file against the F32 weights of the same checkpoint, on one text."""

    n_tokens: int
    """Predictions compared; for encoders, tokens of the texts that were embedded."""
    kl_mean: float | None = None
    """Kullback-Leibler divergence from F32's distribution, in nats."""
    kl_max: float | None = None
    top1_agreement: float | None = None
    """Share of the positions where both find the same token most likely."""
    perplexity: float | None = None
    perplexity_f32: float | None = None
    cosine_mean: float | None = None
    """Of embeddings, for encoders; they predict nothing."""
    cosine_min: float | None = None

    @property
    def perplexity_ratio(self) -> float | None:
        """The file's perplexity by that of F32."""
        if self.perplexity is None or self.perplexity_f32 is None:
            return None
        return self.perplexity / self.perplexity_f32

    @property
    def is_finite(self) -> bool:
        """Whether every number is one."""
        numbers = (self.kl_mean, self.kl_max, self.perplexity_ratio, self.cosine_mean)
        return all(number is None or math.isfinite(number) for number in numbers)

    def summary(self) -> str:
        """One line."""
        if self.cosine_mean is not None:
            return f"cosine {self.cosine_mean:.5f} (least {self.cosine_min:.5f})"
        return (
            f"KL divergence {self.kl_mean:.4g} (most {self.kl_max:.4g}), same first choice at "
            f"{100 * (self.top1_agreement or 0):.1f} % of {self.n_tokens} positions, perplexity "
            f"{self.perplexity:.4g} against {self.perplexity_f32:.4g} "
            f"(ratio {self.perplexity_ratio:.4f})"
        )


def read_text(path: Path | None) -> str:
    """The text to compare on; by default a few pages that come with the package.

    Raises ConversionError where the file cannot be read, is empty, or is no UTF-8 text.
    """
    if path is None:
        return (files("mofa_gguf.convert") / "comparison.txt").read_text(encoding="utf-8")
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TEXT_BYTES).decode("utf-8", errors="strict")
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        # The cut may go through a character; that is no fault of the file.
        if error.start < MAX_TEXT_BYTES - 4:
            raise ConversionError(f"{path}: is no UTF-8 text (byte {error.start})") from error
        text = error.object[: error.start].decode("utf-8")
    if not text.strip():
        raise ConversionError(f"{path}: holds no text to compare on")
    return text


def compare(
    path: Path, f32_path: Path, tokens: Sequence[int], *, n_threads: int | None = None
) -> Comparison:
    """Compare two GGUF files of one checkpoint on a text's tokens (the first MAX_TOKENS of them).

    Raises what loading and computing raise (engine.errors).
    """
    with (
        Probe(path, n_threads=n_threads) as probe,
        Probe(f32_path, n_threads=n_threads) as f32_probe,
    ):
        windows = list(_windows(probe, tokens[:MAX_TOKENS]))
        if probe.model.is_encoder:
            return _of_embeddings(probe, f32_probe, windows)
        return _of_predictions(probe, f32_probe, windows)


def _windows(probe: Probe, tokens: Sequence[int]) -> Iterator[list[int]]:
    model = probe.model
    size = min(_WINDOW, model.n_ctx_train, _WINDOW_NUMBERS // model.vocab.n_tokens)
    bos = model.vocab.bos if model.vocab.add_bos else None
    first = [] if bos is None else [bos]
    body = [token for token in tokens if token != bos]
    step = max(2, size) - len(first)
    for start in range(0, len(body), step):
        window = [*first, *body[start : start + step]]
        if len(window) > 1:
            yield window


def _of_predictions(probe: Probe, f32_probe: Probe, windows: list[list[int]]) -> Comparison:
    divergences, agreements, losses, f32_losses = [], 0, 0.0, 0.0
    for window in windows:
        logits, f32_logits = probe.logits(window), f32_probe.logits(window)
        for i, following in enumerate(window[1:]):
            mine, f32 = _log_softmax(logits[i]), _log_softmax(f32_logits[i])
            # Never below 0 but for rounding.
            divergences.append(max(0.0, float((np.exp(f32) * (f32 - mine)).sum())))
            agreements += int(mine.argmax() == f32.argmax())
            losses -= float(mine[following])
            f32_losses -= float(f32[following])
    n = len(divergences)
    if n == 0:
        raise ConversionError("the text for the comparison has fewer than two tokens")
    return Comparison(
        n,
        kl_mean=float(np.mean(divergences)),
        kl_max=max(divergences),
        top1_agreement=agreements / n,
        perplexity=_exp(losses / n),
        perplexity_f32=_exp(f32_losses / n),
    )


def _of_embeddings(probe: Probe, f32_probe: Probe, windows: list[list[int]]) -> Comparison:
    # The one value of a reranker has no direction: the vectors before its head are compared.
    pooling = _MEAN if probe.model.pooling == "rank" else None
    cosines = []
    for window in windows:
        one, other = (it.embedding(window, pooling=pooling) for it in (probe, f32_probe))
        cosines.append(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
    if not cosines:
        raise ConversionError("the text for the comparison has fewer than two tokens")
    n_tokens = sum(len(window) for window in windows)
    return Comparison(n_tokens, cosine_mean=float(np.mean(cosines)), cosine_min=min(cosines))


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    values = logits.astype(np.float64)
    values -= values.max()
    shifted: npt.NDArray[np.float64] = values - np.log(np.exp(values).sum())
    return shifted


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
