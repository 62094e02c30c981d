"""What guessing ahead from a text's own past is worth, and what it costs where it is worth nothing.

    python -m tools.bench.speculation [--model FILE] [--repeats 3] [--streams 1 4] [--output FILE]

A model with random weights does not quote, so it is made to: a script stands in for a constraint
and allows only the token that comes next. What is computed, sampled and checked is what a model
that says the same by itself would need. The workloads:

    quote       the answer is a passage of the prompt, word for word
    edit        a passage with every 20th word changed, as when code is edited
    fresh       no three words in a row were said before: nothing can be guessed
    misleading  words out of eight at random: there is always a guess, and it is mostly wrong

The roads ("off", "auto", "prompt-lookup") take turns; wall and process time are medians. Without
``--model`` one of 0.4 B parameters in Q4_0 is made.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions, Speculation
from mofa_gguf.engine.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.sampling import SamplingOptions
from tools.bench.model import write_model

N_PROMPT, N_ANSWER = 256, 96
MODES: tuple[Speculation, ...] = ("off", "auto", "prompt-lookup")


class Script:
    """Allows one token after another, as a constraint that leaves no choice."""

    stopped = False

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._at = 0

    def mask(self, logits: NDArray[np.float32]) -> None:
        kept = logits[self._tokens[self._at]].copy()
        logits[:] = -np.inf
        logits[self._tokens[self._at]] = kept

    def accept(self, token: int) -> None:
        assert token == self._tokens[self._at]
        self._at += 1

    def fitted(self, token: int) -> tuple[int, ...]:
        return (token,)

    def forced(self) -> list[int]:
        return []


Workload = Callable[[random.Random, int], tuple[list[int], list[int]]]
"""Makes a prompt and the answer to it, out of a vocabulary of a size."""


def quote(chance: random.Random, n_vocab: int) -> tuple[list[int], list[int]]:
    prompt = _words(chance, n_vocab, N_PROMPT)
    start = chance.randrange(32, N_PROMPT - N_ANSWER)
    return [*prompt, *prompt[start - 4 : start]], prompt[start : start + N_ANSWER]


def edit(chance: random.Random, n_vocab: int) -> tuple[list[int], list[int]]:
    prompt, answer = quote(chance, n_vocab)
    changed = [chance.randrange(300, n_vocab) if i % 20 == 19 else t for i, t in enumerate(answer)]
    return prompt, changed


def fresh(chance: random.Random, n_vocab: int) -> tuple[list[int], list[int]]:
    return _words(chance, n_vocab, N_PROMPT), _words(chance, n_vocab, N_ANSWER)


def misleading(chance: random.Random, n_vocab: int) -> tuple[list[int], list[int]]:
    few = _words(chance, n_vocab, 8)
    return chance.choices(few, k=N_PROMPT), chance.choices(few, k=N_ANSWER)


WORKLOADS: dict[str, Workload] = {
    "quote": quote,
    "edit": edit,
    "fresh": fresh,
    "misleading": misleading,
}


def _words(chance: random.Random, n_vocab: int, n: int) -> list[int]:
    return [chance.randrange(300, n_vocab) for _ in range(n)]


@dataclass(frozen=True)
class Row:
    """One workload on one road, medians."""

    workload: str
    streams: int
    mode: Speculation
    wall_s: float
    cpu_s: float
    tokens_per_s: float
    ratio: float
    """Wall time of "off" by this one's: above 1 is faster."""
    cpu_ratio: float
    """The same of process time, which others on the machine disturb less."""
    steps: int
    drafted: int
    accepted: int


@dataclass(frozen=True)
class Run:
    """One measurement: the answers' decoding alone, prompts being cached."""

    wall_s: float
    cpu_s: float
    n_steps: int
    n_drafted: int
    n_accepted: int


def run(engine: Engine, pairs: Sequence[tuple[list[int], list[int]]], mode: Speculation) -> Run:
    """Let the engine say the answers, all at once."""
    for prompt, _ in pairs:
        list(engine.submit(GenerationRequest(prompt, max_tokens=1, ignore_eos=True)))
    requests = [
        GenerationRequest(
            prompt,
            SamplingOptions(temperature=0),
            max_tokens=len(answer),
            constraint=lambda answer=answer: Script(answer),  # type: ignore[misc, return-value]
            speculation=mode,
        )
        for prompt, answer in pairs
    ]
    before, started, cpu = engine.stats().n_steps, time.monotonic(), time.process_time()
    generations = [engine.submit(request) for request in requests]
    ends = [[*generation][-1] for generation in generations]
    wall_s, cpu_s = time.monotonic() - started, time.process_time() - cpu
    finished = [end for end in ends if isinstance(end, FinishEvent)]
    assert [end.n_generated_tokens for end in finished] == [len(answer) for _, answer in pairs]
    return Run(
        wall_s,
        cpu_s,
        engine.stats().n_steps - before,
        sum(end.n_drafted_tokens for end in finished),
        sum(end.n_accepted_tokens for end in finished),
    )


def measure(engine: Engine, name: str, *, n_streams: int, n_repeats: int) -> list[Row]:
    """One workload on all roads, which take turns."""
    n_vocab = engine.model.vocab.n_tokens
    runs: dict[Speculation, list[Run]] = {mode: [] for mode in MODES}
    for repeat in range(n_repeats):
        for n, mode in enumerate(MODES):
            chance = random.Random(f"{name} {repeat} {n}")
            pairs = [WORKLOADS[name](chance, n_vocab) for _ in range(n_streams)]
            runs[mode].append(run(engine, pairs, mode))
    middle = {mode: statistics.median(r.wall_s for r in all_) for mode, all_ in runs.items()}
    return [
        Row(
            name,
            n_streams,
            mode,
            round(middle[mode], 3),
            round(statistics.median(r.cpu_s for r in all_), 3),
            round(n_streams * N_ANSWER / middle[mode], 1),
            round(middle["off"] / middle[mode], 2),
            round(
                statistics.median(r.cpu_s for r in runs["off"])
                / statistics.median(r.cpu_s for r in all_),
                2,
            ),
            int(statistics.median(r.n_steps for r in all_)),
            int(statistics.median(r.n_drafted for r in all_)),
            int(statistics.median(r.n_accepted for r in all_)),
        )
        for mode, all_ in runs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    print("|", " | ".join(name.replace("_", " ") for name in Row.__annotations__), "|")
    print("|", " | ".join("---" for _ in Row.__annotations__), "|")
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or write_model(Path(folder) / "bench.gguf")
        engine = Engine.load(model, EngineOptions(n_ctx=8192, n_threads=arguments.threads))
        for name in arguments.only:
            for n_streams in arguments.streams:
                for row in measure(engine, name, n_streams=n_streams, n_repeats=arguments.repeats):
                    rows.append(row)
                    print("|", " | ".join(str(v) for v in asdict(row).values()), "|", flush=True)
        engine.close()
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
