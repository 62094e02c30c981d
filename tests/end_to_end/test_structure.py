"""Structured answers at a high temperature: the bundled model, and vocabularies of all kinds."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import gguf
import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    GGUFConfig,
    GGUFProvider,
    LLMClient,
    ResponseFormat,
    Tool,
)
from tests.support.tiny_gguf import TinyLlama, TinyVocab, byte_vocab, write_tiny_llama
from tools.check_structure import SCHEMAS, answers, problem_of

KIND = gguf.TokenType
WORDS = ['{"', '":', '","', '"}', "true", "false", "null", "city", "12", "]}", ' "', "km", ": "]
LETTERS = [chr(code) for code in range(33, 127)]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 5},
        "days": {"type": "integer", "minimum": 1, "maximum": 30},
        "unit": {"enum": ["km", "mi", None]},
        "fast": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["city", "days", "unit", "fast"],
    "additionalProperties": False,
}


def sentencepiece() -> TinyVocab:
    """As Llama 2's: pieces with scores, every byte, a blank written as a low line."""
    words = [word.replace(" ", "▁") for word in WORDS] + ["▁"]
    letters = [each for each in LETTERS if each not in "<>"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *words, *letters]
    n_words = len(words) + len(letters)
    return TinyVocab(
        model="llama",
        tokens=tokens,
        types=[KIND.UNKNOWN, KIND.CONTROL, KIND.CONTROL, *[KIND.BYTE] * 256]
        + [KIND.NORMAL] * n_words,
        scores=[0.0] * 259 + [-float(n) for n in range(n_words)],
        bos=1,
        eos=2,
        pre="default",
    )


def unigram() -> TinyVocab:
    """As T5's: pieces with log-probabilities, no bytes."""
    pieces = [word.replace(" ", "▁") for word in WORDS] + ["▁", *LETTERS]
    return TinyVocab(
        model="t5",
        tokens=["<pad>", "</s>", "<unk>", *pieces],
        types=[KIND.CONTROL, KIND.CONTROL, KIND.UNKNOWN, *[KIND.NORMAL] * len(pieces)],
        scores=[0.0, 0.0, 0.0, *[-1.0 - n / 10 for n in range(len(pieces))]],
        bos=0,
        eos=1,
        pre="default",
    )


MERGES = ('{ "', '" :', '" ,', "t r", "u e", "tr ue", "n u", "l l", "nu ll", "ue ]", "k m", "] }")


def tekken() -> TinyVocab:
    """As Mistral's since Nemo: merged bytes, split by a pattern of its own."""
    made = byte_vocab(merges=MERGES)
    return TinyVocab(**{**vars(made), "pre": "tekken"})


VOCABULARIES = {
    "bytes": byte_vocab(),
    "byte-level BPE": byte_vocab(merges=MERGES),
    "SentencePiece": sentencepiece(),
    "tekken": tekken(),
    "unigram": unigram(),
}


@pytest.mark.parametrize("kind", sorted(VOCABULARIES))
async def test_a_hundred_answers_are_valid_whatever_the_vocabulary(
    tmp_path: Path, kind: str
) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    shape = TinyLlama(
        n_layers=1, n_embd=32, n_ff=32, n_ctx=1024, chat_template=template, vocab=VOCABULARIES[kind]
    )
    path = write_tiny_llama(tmp_path / "tiny.gguf", shape)
    async with GGUFProvider(GGUFConfig(model=str(path), n_threads=1, max_queue=200)) as provider:
        responses = await asyncio.gather(
            *(
                provider.chat(
                    ChatCompletionRequest(
                        messages=[ChatMessage.user("?")],
                        response_format=ResponseFormat.json_schema(SCHEMA),
                        temperature=1.5,
                        seed=seed,
                    )
                )
                for seed in range(100)
            )
        )
    texts = [response.content() or "" for response in responses]
    assert [problem_of(text, SCHEMA) for text in texts] == [None] * 100
    assert len(set(texts)) > 90


async def test_answers_of_the_bundled_model_are_valid_under_all_schemas(tmp_path: Path) -> None:
    config = GGUFConfig(model="demo", n_threads=1, cache_dir=tmp_path)
    async with GGUFProvider(config) as provider:
        found = await answers(provider, per_schema=2, temperature=1.5)
    assert [answer for answer in found if answer.problem is not None] == []
    assert {answer.schema for answer in found} == set(SCHEMAS)


def test_a_tool_that_the_bundled_model_has_never_seen_is_called_validly(tmp_path: Path) -> None:
    tool = Tool.function(
        "get_weather",
        "Get the current weather of a city",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 12},
                "scale": {"enum": ["kelvin", "rankine"]},
                "days": {"type": "integer", "minimum": 2, "maximum": 4},
            },
            "required": ["city", "scale", "days"],
        },
    )
    config = GGUFConfig(model="demo", n_threads=1, cache_dir=tmp_path)
    with LLMClient(GGUFProvider(config)) as client:
        question = "What is the weather in Paris?"
        response = client.chat(question, tools=[tool], temperature=0)
        (call,) = response.choices[0].message.tool_calls or []
        assert problem_of(call.function.arguments, tool.function.parameters) is None
        assert json.loads(call.function.arguments)["city"].startswith("Paris")
        plain = client.chat("Hello!", tools=[tool], temperature=0)
        assert plain.content()
        assert not plain.choices[0].message.tool_calls
