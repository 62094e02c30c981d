"""What structure costs: constrained against free decoding, and long prompts with tools.

    python -m tools.bench.structure [--model bench.gguf] [--vocab qwen2.gguf --template q.jinja]
                                    [--output FOLDER]

Makes its own checkpoint (0.4 B parameters, Q4_0, random weights). Free and constrained streams run
in turn; reported are medians of tokens per second and of processor time a token, and what the free
stream does in the same time. A second part renders and tokenizes a conversation of 50 messages with
20 tools, over and over, with the vocabulary and the template of a real model if they are given.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mofa_gguf.chat import ChatTemplate, Shield, cut
from mofa_gguf.contract import ChatMessage, Tool, ToolCall
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.structure import grammars
from mofa_gguf.engine.structure.answer_plan import AnswerPlan, Trigger
from mofa_gguf.engine.structure.constraint import ConstraintFactory, TokenConstraint
from mofa_gguf.engine.structure.staged import StagedConstraint
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tools.bench.model import write_model

N_ANSWER = 64
PROMPT = [1, *range(300, 315)]
TEMPLATE = Path(__file__).parent.parent.parent / "tests/data/chat/templates/chatml_with_tools.jinja"
FREE = "free"
# Strings without a bound: the schema leaves the model its choice at nearly every token.
OPEN = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 10 * N_ANSWER}},
    "required": ["text"],
    "additionalProperties": False,
}
# Nearly every token is forced; what is free is a choice between two.
FORCED = {
    "type": "object",
    "properties": {
        f"the_{n}th_question_of_the_form": {"enum": [f"w{n}00 yes, it is", f"w{n}00 no, it is not"]}
        for n in range(6)
    },
    "required": [f"the_{n}th_question_of_the_form" for n in range(6)],
    "additionalProperties": False,
}

Make = Callable[[], TokenConstraint]


@dataclass(frozen=True)
class Run:
    """One stream."""

    road: str
    n_tokens: int
    decode_s: float
    cpu_s: float
    n_steps: int


def constraints(vocab: Vocab, eos: list[int]) -> dict[str, Make | None]:
    """The roads: what each one's answer is held to."""
    factory = ConstraintFactory(vocab, eos=eos)
    call = factory.maker(grammars.json_schema(OPEN, whitespace="compact"))
    waiting = AnswerPlan(triggers=(Trigger(b"<tool_call>", call),))
    return {
        FREE: None,
        "open schema": factory.maker(grammars.json_schema(OPEN, whitespace="compact")),
        "tool_choice auto": lambda: StagedConstraint(waiting, factory, eos=eos),
        "forced schema": factory.maker(grammars.json_schema(FORCED, whitespace="compact")),
    }


def stream(engine: Engine, road: str, make: Make | None) -> Run:
    """One answer; its time is that behind the first token."""
    request = GenerationRequest(
        PROMPT,
        SamplingOptions(temperature=0.8, top_k=40, seed=1),
        max_tokens=N_ANSWER if road != "forced schema" else None,
        min_tokens=0 if make is not None else N_ANSWER,
        constraint=make,
    )
    steps = engine.stats().n_steps
    cpu = time.process_time()
    end = None
    for event in engine.submit(request):
        if isinstance(event, FinishEvent):
            end = event
    assert end is not None
    cpu_s = time.process_time() - cpu
    n_steps = engine.stats().n_steps - steps
    return Run(road, end.n_generated_tokens, end.timings.decode_s, cpu_s, n_steps)


def decoding(model: Path, repeats: int, n_threads: int) -> list[Run]:
    """Every road, alternating; the first round warms up and does not count."""
    engine = Engine.load(model, EngineOptions(n_ctx=2048, max_parallel=2, n_threads=n_threads))
    try:
        roads = constraints(engine.model.vocab, sorted(engine.model.eog_ids))
        runs = []
        for repeat in range(repeats + 1):
            for road, make in roads.items():
                run = stream(engine, road, make)
                if repeat:
                    runs.append(run)
        return runs
    finally:
        engine.close()


def conversation() -> tuple[list[ChatMessage], list[Tool]]:
    """50 messages, with calls and results among them, and 20 tools of five parameters."""
    words = "The quick brown fox jumps over the lazy dog, and 12 others follow it home. "
    messages = [ChatMessage.system(words * 6)]
    for n in range(12):
        call = ToolCall.new(f"abcdefg{n:02}", f"tool_{n}", {"a": n, "b": words})
        messages += [
            ChatMessage.user(words * 3),
            ChatMessage.assistant_with_tool_calls([call]),
            ChatMessage.tool_result(call.id, words * 2),
            ChatMessage.assistant(words * 3),
        ]
    messages.append(ChatMessage.user("And now?"))
    properties = {
        name: {"type": "string", "description": words, "enum": ["one", "two", "three"]}
        for name in "abcde"
    }
    parameters = {"type": "object", "properties": properties, "required": ["a"]}
    return messages, [Tool.function(f"tool_{n}", words, parameters) for n in range(20)]


def rendering(vocab: Vocab, template: ChatTemplate, repeats: int) -> dict[str, Any]:
    """Seconds of processor time to render, and to tokenize, after the first time."""
    messages, tools = conversation()
    shield = Shield(vocab.control_texts(), vocab.tag_texts())
    rendered, tokenized, tokens = [], [], 0
    for _ in range(repeats + 1):
        started = time.process_time()
        text = template.render(shield.messages(messages), tools=tools)
        between = time.process_time()
        pieces = cut(text)
        tokens = sum(
            len(vocab.tokenize(piece, parse_special=True, continues=n > 0))
            for n, piece in enumerate(pieces)
        )
        tokenized.append(time.process_time() - between)
        rendered.append(between - started)
    return {
        "n_chars": len(text),
        "n_tokens": tokens,
        "render_ms": 1000 * statistics.median(rendered[1:]),
        "tokenize_ms": 1000 * statistics.median(tokenized[1:]),
        "first_ms": 1000 * (rendered[0] + tokenized[0]),
    }


def table(runs: list[Run], prompt: dict[str, Any]) -> str:
    """Markdown tables of the medians."""
    lines = [
        "| road | tokens | steps | tokens/s | of free | ms a step | CPU ms a step |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    speeds: dict[str, float] = {}
    for road in dict.fromkeys(run.road for run in runs):
        own = [run for run in runs if run.road == road]
        speeds[road] = statistics.median(run.n_tokens / run.decode_s for run in own)
        step = statistics.median(1000 * run.decode_s / run.n_steps for run in own)
        cpu = statistics.median(1000 * run.cpu_s / run.n_steps for run in own)
        lines.append(
            f"| {road} | {own[0].n_tokens} | {own[0].n_steps} | {speeds[road]:.1f} "
            f"| {speeds[road] / speeds[FREE]:.2f} | {step:.1f} | {cpu:.1f} |"
        )
    lines += [
        "",
        "| characters | tokens | render ms | tokenize ms | first time ms |",
        "| ---: | ---: | ---: | ---: | ---: |",
        f"| {prompt['n_chars']} | {prompt['n_tokens']} | {prompt['render_ms']:.1f} "
        f"| {prompt['tokenize_ms']:.1f} | {prompt['first_ms']:.1f} |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="where to keep the checkpoint")
    parser.add_argument("--vocab", type=Path, help="a GGUF file with a real vocabulary")
    parser.add_argument("--template", type=Path, default=TEMPLATE, help="a chat template")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="folder for structure.json")
    arguments = parser.parse_args()
    template = ChatTemplate(arguments.template.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or Path(scratch) / "bench.gguf"
        if not model.exists():
            write_model(model)
        with VocabFile(arguments.vocab or model) as file:
            prompt = rendering(file.vocab, template, 4 * arguments.repeats)
        runs = decoding(model, arguments.repeats, arguments.threads)
    print(table(runs, prompt))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        found = {"decoding": [asdict(run) for run in runs], "prompt": prompt}
        (arguments.output / "structure.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
