"""Score the demo model through the package's own provider.

    python tools/eval_demo.py path/to/demo-Q8_0.gguf --label Q8_0

plays the held-out dialogues of tools/demo against ``GGUFProvider`` and writes the scores to
tools/demo/results. ``--model`` may be a .gguf file or a checkpoint folder.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from demo import scoring
from demo.cases import Message, ToolDefinition
from demo.results import write_scores

from mofa_gguf import GGUFConfig, GGUFProvider
from mofa_gguf.contract import ChatCompletionRequest, ChatMessage, Tool

RESULTS = Path(__file__).resolve().parent / "demo" / "results"
HELD_OUT_SEED = 2


def contract_message(message: Message) -> ChatMessage:
    """A plain dict as the contract's message; arguments of calls become JSON text."""
    calls = [
        {**c, "function": {**c["function"], "arguments": _text(c["function"]["arguments"])}}
        for c in message.get("tool_calls") or []
    ]
    return ChatMessage.model_validate({**message, **({"tool_calls": calls} if calls else {})})


def _text(arguments: object) -> str:
    import json

    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


async def answer(
    provider: GGUFProvider, messages: Sequence[Message], tools: Sequence[ToolDefinition]
) -> Message:
    """One greedy answer of the provider as a plain dict."""
    request = ChatCompletionRequest(
        model="",
        messages=[contract_message(m) for m in messages],
        tools=[Tool.model_validate(t) for t in tools] or None,
        temperature=0.0,
        max_tokens=96,
    )
    response = await provider.chat(request)
    message = response.choices[0].message
    dumped: Message = message.model_dump(mode="json", exclude_none=True)
    return dumped


async def run(model: Path, n_per_category: int) -> dict[str, scoring.CategoryScore]:
    """Score a model file or folder; the dialogues are played one after the other."""
    loop = asyncio.get_running_loop()
    async with GGUFProvider(GGUFConfig(model=str(model))) as provider:

        def generate(messages: Sequence[Message], tools: Sequence[ToolDefinition]) -> Message:
            future = asyncio.run_coroutine_threadsafe(answer(provider, messages, tools), loop)
            return future.result()

        return await asyncio.to_thread(
            scoring.score, generate, seed=HELD_OUT_SEED, n_per_category=n_per_category
        )


def main() -> None:
    """Read the command line, score, write and print."""
    parser = argparse.ArgumentParser(description="Score the demo model through GGUFProvider.")
    parser.add_argument("model", type=Path, help="a .gguf file or a checkpoint folder")
    parser.add_argument("--label", default="Q8_0", help="the name of the scores, a quantization")
    parser.add_argument("--cases", type=int, default=100, help="cases a category")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    scores = asyncio.run(run(arguments.model, arguments.cases))
    write_scores(scores, arguments.results, label=arguments.label, seed=HELD_OUT_SEED)
    print(scoring.markdown(scores, arguments.label))


if __name__ == "__main__":
    main()
