"""What guessing ahead from a text's own past is worth, and what it costs where it is worth nothing.

    python -m tools.bench.speculation [--model FILE] [--draft FILE] [--repeats 3] [--streams 1 4]
                                      [--output FILE]

A model with random weights does not quote, so it is made to: a script stands in for a constraint
and allows only the token that comes next. What is computed, sampled and checked is what a model
that says the same by itself would need. The workloads:

    quote       the answer is a passage of the prompt, word for word
    edit        a passage with every 20th word changed, as when code is edited
    fresh       no three words in a row were said before: nothing can be guessed
    misleading  words out of eight at random: there is always a guess, and it is mostly wrong

    free        nothing is scripted: what the model says by itself

The roads ("off", "auto", "prompt-lookup") take turns; wall and process time are medians. Without
``--model`` one of 0.4 B parameters in Q4_0 is made. With ``--draft`` (the file of a small model
with the same vocabulary) an engine with it has the roads "auto + draft" and "draft-model", too.
"made" is one with random weights, which is always wrong about a script; "alike" one with the first
layers of the model that is made, whose others change nothing: without a script it is nearly always
right.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions, Speculation
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.structure.constraint import TokenConstraint
from tools.bench.model import Shape, write_model

N_PROMPT, N_ANSWER = 256, 96
MODES: tuple[Speculation, ...] = ("off", "auto", "prompt-lookup")
SMALL = Shape(n_layers=4, n_embd=512, n_heads=8, n_kv_heads=4, n_ff=1536)
"""A draft model with random weights and the vocabulary of the model that is made."""
N_ALIKE = 3
"""Layers of a draft model that says the same."""


@dataclass(frozen=True)
class Road:
    """A way to say the answers: a mode, with a draft model or without."""

    mode: Speculation
    drafts: bool = False

    @property
    def name(self) -> str:
        return f"{self.mode} + draft" if self.drafts and self.mode == "auto" else self.mode


ROADS = tuple(Road(mode) for mode in MODES)
DRAFT_ROADS = (Road("auto", drafts=True), Road("draft-model", drafts=True))


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


def script(tokens: Sequence[int]) -> Callable[[], TokenConstraint]:
    """Makes a request's script, as the engine asks for its constraint."""
    return lambda: Script(tokens)  # type: ignore[return-value]


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


def free(chance: random.Random, n_vocab: int) -> tuple[list[int], list[int]]:
    return _words(chance, n_vocab, N_PROMPT), []


WORKLOADS: dict[str, Workload] = {
    "quote": quote,
    "edit": edit,
    "fresh": fresh,
    "misleading": misleading,
    "free": free,
}


def _words(chance: random.Random, n_vocab: int, n: int) -> list[int]:
    return [chance.randrange(300, n_vocab) for _ in range(n)]


@dataclass(frozen=True)
class Row:
    """One workload on one road, medians."""

    workload: str
    streams: int
    mode: str
    wall_s: float
    cpu_s: float
    tokens_per_s: float
    ratio: float
    """Wall time of "off" by this one's: above 1 is faster."""
    cpu_ratio: float
    """The same of process time, which others on the machine disturb less."""
    steps: int
    draft_steps: int
    drafted: int
    accepted: int


@dataclass(frozen=True)
class Run:
    """One measurement: the answers' decoding alone, prompts being cached."""

    wall_s: float
    cpu_s: float
    n_steps: int
    n_draft_steps: int
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
            max_tokens=len(answer) or N_ANSWER,
            ignore_eos=not answer,
            constraint=script(answer) if answer else None,
            speculation=mode,
        )
        for prompt, answer in pairs
    ]
    before, started, cpu = engine.stats(), time.monotonic(), time.process_time()
    generations = [engine.submit(request) for request in requests]
    ends = [[*generation][-1] for generation in generations]
    wall_s, cpu_s = time.monotonic() - started, time.process_time() - cpu
    finished = [end for end in ends if isinstance(end, FinishEvent)]
    n_said = [end.n_generated_tokens for end in finished]
    assert n_said == [len(answer) or N_ANSWER for _, answer in pairs]
    after = engine.stats()
    return Run(
        wall_s,
        cpu_s,
        after.n_steps - before.n_steps,
        after.n_draft_steps - before.n_draft_steps,
        sum(end.n_drafted_tokens for end in finished),
        sum(end.n_accepted_tokens for end in finished),
    )


def measure(engines: dict[bool, Engine], name: str, *, n_streams: int, n_repeats: int) -> list[Row]:
    """One workload on all roads, which take turns. ``engines``: that with a draft model is True."""
    n_vocab = engines[False].model.vocab.n_tokens
    roads = ROADS + (DRAFT_ROADS if True in engines else ())
    runs: dict[Road, list[Run]] = {road: [] for road in roads}
    for repeat in range(n_repeats):
        for n, road in enumerate(roads):
            chance = random.Random(f"{name} {repeat} {n}")
            pairs = [WORKLOADS[name](chance, n_vocab) for _ in range(n_streams)]
            runs[road].append(run(engines[road.drafts], pairs, road.mode))
    plain = runs[ROADS[0]]
    return [_row(name, n_streams, road, all_, plain) for road, all_ in runs.items()]


def _row(name: str, n_streams: int, road: Road, runs: Sequence[Run], plain: Sequence[Run]) -> Row:
    def middle(name: str, of: Sequence[Run] = runs) -> float:
        return float(statistics.median(getattr(each, name) for each in of))

    return Row(
        name,
        n_streams,
        road.name,
        round(middle("wall_s"), 3),
        round(middle("cpu_s"), 3),
        round(n_streams * N_ANSWER / middle("wall_s"), 1),
        round(middle("wall_s", plain) / middle("wall_s"), 2),
        round(middle("cpu_s", plain) / middle("cpu_s"), 2),
        int(middle("n_steps")),
        int(middle("n_draft_steps")),
        int(middle("n_drafted")),
        int(middle("n_accepted")),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--draft", help="a small model's file, or: made, alike")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--n-ctx", type=int, default=8192)
    parser.add_argument("--only", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    print("|", " | ".join(name.replace("_", " ") for name in Row.__annotations__), "|")
    print("|", " | ".join("---" for _ in Row.__annotations__), "|")
    with tempfile.TemporaryDirectory() as folder:
        alike = arguments.draft == "alike"
        shape = Shape(n_active=N_ALIKE if alike else None)
        model = arguments.model or write_model(Path(folder) / "bench.gguf", shape)
        options = EngineOptions(n_ctx=arguments.n_ctx, n_threads=arguments.threads)
        engines = {False: Engine.load(model, options)}
        if arguments.draft is not None:
            shapes = {"made": SMALL, "alike": Shape(n_layers=N_ALIKE)}
            draft = arguments.draft
            if draft in shapes:
                draft = write_model(Path(folder) / "draft.gguf", shapes[draft])
            engines[True] = Engine.load(model, replace(options, draft_model=str(draft)))
        for name in arguments.only:
            for n_streams in arguments.streams:
                for row in measure(engines, name, n_streams=n_streams, n_repeats=arguments.repeats):
                    rows.append(row)
                    print("|", " | ".join(str(v) for v in asdict(row).values()), "|", flush=True)
        for engine in engines.values():
            engine.close()
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
