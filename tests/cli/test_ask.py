"""``ask``: one prompt, one answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mofa_gguf.contract import ChatCompletionRequest, ChatCompletionResponse
from tests.cli.conftest import Run

Configure = Callable[..., Path]


def test_the_answer_goes_to_standard_output_alone(run: Run, configure: Configure) -> None:
    configure('replies = ["Paris, of course."]')
    result = run("ask", "What is the capital of France?")
    assert (result.code, result.out, result.err) == (0, "Paris, of course.\n", "")


def test_a_dash_reads_the_prompt_from_standard_input(run: Run, configure: Configure) -> None:
    configure()
    assert run("ask", "-", stdin="line one\nline two").out == "line one\nline two\n"


def test_the_response_can_be_had_as_json(run: Run, configure: Configure) -> None:
    configure('replies = ["Paris"]')
    response = ChatCompletionResponse.from_json(run("ask", "hello", "--json").out)
    assert response.content() == "Paris"
    assert response.usage is not None


def test_reasoning_is_kept_out_of_what_a_program_reads(run: Run, configure: Configure) -> None:
    configure('replies = ["Four."]\nreasoning = "two and two"')
    assert run("ask", "2+2?").out == "Four.\n"


def test_options_reach_the_provider(
    run: Run, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.host.testing import ScriptedProvider

    seen: list[ChatCompletionRequest] = []
    original = ScriptedProvider.chat_stream

    def chat_stream(self: ScriptedProvider, request: ChatCompletionRequest) -> object:
        seen.append(request)
        return original(self, request)

    monkeypatch.setattr(ScriptedProvider, "chat_stream", chat_stream)
    configure()
    Path("schema.json").write_text('{"type": "object"}')
    options = ["-s", "Be brief.", "-t", "0", "-n", "5", "--seed", "7", "--schema", "schema.json"]
    assert run("ask", "hello", *options).code == 0
    (request,) = [json.loads(request.to_json()) for request in seen]
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (request["temperature"], request["max_tokens"], request["seed"]) == (0, 5, 7)
    assert request["response_format"] == {
        "type": "json_schema",
        "json_schema": {"type": "object"},
    }


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_schema_that_is_none_is_refused(run: Run, configure: Configure, content: str) -> None:
    configure()
    Path("schema.json").write_text(content)
    result = run("ask", "hello", "--schema", "schema.json")
    assert result.code == 1
    assert "the schema schema.json is no JSON" in result.err


def test_a_providers_error_is_one_line(run: Run, configure: Configure) -> None:
    configure("replies = []")
    result = run("ask", "hello")
    assert result.code == 1
    assert result.err == "error: LLM error: the script has no reply to request 1\n"


def test_one_of_several_providers_can_be_named(run: Run, plugin: Path) -> None:
    Path("two.toml").write_text(
        'default = "a"\n'
        '[providers.a]\nprovider = "scripted"\nreplies = ["from a"]\n'
        '[providers.b]\nprovider = "echo"\nreplies = ["from b"]\n'
    )
    assert run("ask", "x", "-c", "two.toml").out == "from a\n"
    assert run("ask", "x", "-c", "two.toml", "-p", "b").out == "from b\n"
    assert "there is no provider 'c'" in run("ask", "x", "-c", "two.toml", "-p", "c").err


def test_vectors_come_as_a_json_line_a_text(run: Run, configure: Configure) -> None:
    configure()
    lines = [json.loads(line) for line in run("embed", "one", "two").out.splitlines()]
    assert [(line["index"], line["text"]) for line in lines] == [(0, "one"), (1, "two")]
    assert all(len(line["embedding"]) == 8 for line in lines)


def test_lines_of_standard_input_are_embedded_in_order(run: Run, configure: Configure) -> None:
    configure()
    texts = [f"text {n}" for n in range(100)]
    result = run("embed", stdin="\n".join(texts) + "\n")
    assert [json.loads(line)["text"] for line in result.out.splitlines()] == texts
