"""What choosing a token costs: the engine's own draw against llama.cpp's sampler chain.

    python -m tools.bench.sampling

Both choose from the same logits, in turn. The logits fall as a language's words do (Zipf's law:
a token's probability by its rank to a power): one distribution where the model is rather sure, and
one where it is not. Prints a Markdown table of medians in microseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from typing import Any

import numpy as np

from mofa_gguf.engine.native import llama
from mofa_gguf.engine.requests.drawing import FloatArray
from mofa_gguf.engine.requests.sampling import Sampler, SamplingOptions

N_VOCAB = (32_000, 151_936, 262_144)
STEEPNESS = {"sure": 2.0, "unsure": 1.1}
OPTIONS: dict[str, dict[str, Any]] = {
    "temperature 1": {},
    "temperature 0.8, top_p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "temperature 0.8, min_p 0.05": {"temperature": 0.8, "min_p": 0.05},
    "temperature 0.7, top_k 20, top_p 0.8": {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "top_p 0.9, frequency_penalty 0.5": {"top_p": 0.9, "frequency_penalty": 0.5},
}
SAID = range(0, 400, 2)


class AnyVocab:
    """As much of a vocabulary as a sampler asks for."""

    suppressed: tuple[int, ...] = ()
    pointer = None

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens


def logits_of(n_tokens: int, steepness: float) -> FloatArray:
    """Logits whose probabilities fall with their rank to a power, in any order."""
    ranks = np.random.default_rng(0).permutation(n_tokens) + 1
    return (-steepness * np.log(ranks)).astype(np.float32)


def sampler(n_tokens: int, options: dict[str, Any], *, by_chain: bool) -> Sampler:
    """A sampler that has said something."""
    vocab: Any = AnyVocab(n_tokens)
    made = Sampler(SamplingOptions(seed=1, **options), vocab, prompt=[], by_chain=by_chain)
    for token in SAID:
        made.accept(token)
    return made


def by_chain(made: Sampler, logits: FloatArray) -> float:
    """Seconds that the chain takes, with the list of tokens that it works on."""
    library = llama()
    kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    started = time.perf_counter()
    tokens = np.zeros(len(logits), kind)
    tokens["id"], tokens["logit"] = np.arange(len(logits)), logits
    data = tokens.ctypes.data_as(ctypes.POINTER(library.llama_token_data))
    array = library.llama_token_data_array(data, len(logits), -1, False)
    library.llama_sampler_apply(made._chain, ctypes.byref(array))
    return time.perf_counter() - started


def by_us(made: Sampler, logits: FloatArray) -> float:
    """Seconds that ours takes."""
    own = logits.copy()
    started = time.perf_counter()
    made.sample(None, 0, own)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    print("| vocabulary | model | options | chain µs | ours µs | ours / chain |")
    print("| ---: | --- | --- | ---: | ---: | ---: |")
    for n_tokens in N_VOCAB:
        for model, steepness in STEEPNESS.items():
            logits = logits_of(n_tokens, steepness)
            for name, options in OPTIONS.items():
                theirs = sampler(n_tokens, options, by_chain=True)
                ours = sampler(n_tokens, options, by_chain=False)
                pairs = [(by_chain(theirs, logits), by_us(ours, logits)) for _ in range(repeats)]
                chain, own = (
                    statistics.median(column) * 1e6 for column in zip(*pairs, strict=True)
                )
                print(
                    f"| {n_tokens} | {model} | {name} | {chain:.0f} | {own:.0f} "
                    f"| {own / chain:.2f} |"
                )
                theirs.close()
                ours.close()


if __name__ == "__main__":
    main()
