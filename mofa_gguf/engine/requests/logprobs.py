"""Log-probabilities of tokens from the model's own logits, before any sampling parameter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.requests.request import ChosenLogprob, TokenLogprob
from mofa_gguf.engine.tokens.vocab import Vocab


def chosen_logprob(
    logits: npt.NDArray[np.float32], token: int, n_top: int, vocab: Vocab
) -> ChosenLogprob:
    """Natural log-probability of ``token`` and of the ``n_top`` most likely tokens.

    ``logits`` has shape ``(n_vocab,)``.
    """
    peak = float(logits.max())
    total = peak + float(np.log(np.exp((logits - peak).astype(np.float64)).sum()))
    best: list[int] = []
    if n_top:
        n_top = min(n_top, len(logits))
        candidates = np.argpartition(-logits, n_top - 1)[:n_top]
        best = sorted(candidates.tolist(), key=lambda i: (-float(logits[i]), i))
    top = tuple(
        TokenLogprob(i, vocab.piece(i, special=True), float(logits[i]) - total) for i in best
    )
    return ChosenLogprob(token, vocab.piece(token, special=True), float(logits[token]) - total, top)
