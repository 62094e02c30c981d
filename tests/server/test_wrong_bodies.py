"""What no body may hold is answered with 400 and OpenAI's shape, never with 500."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_gguf import GGUFConfig, GGUFProvider
from tests.server.serving import Served, serving

HELLO = '"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2'


@pytest.mark.parametrize(
    "wrong",
    [
        r'"a\ud800": 1',
        r'"regex": "\ud800"',
        r'"gbnf": "root ::= \"\ud800\""',
        r'"stop": "\ud800"',
        r'"tools": [{"type": "function", "function": {"name": "\ud800"}}]',
        r'"tools": [{"type": "function", "function": {"name": ""}}]',
        r'"chat_template_kwargs": {"messages": []}',
        r'"n": 1000000000',
        r'"messages": [{"role": "user"}]',
        r'"temperature": NaN',
        r'"top_k": "40"',
    ],
)
def test_a_body_that_cannot_be_meant_is_a_bad_request(served: Served, wrong: str) -> None:
    response = served.post("chat/completions", content=f"{{{HELLO}, {wrong}}}".encode())
    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_conversation_that_the_template_refuses_is_a_bad_request(
    tools_model: Path, stream: str
) -> None:
    template = (
        "{{ messages[0].content }}{% if messages[1:] %}{{ raise_exception('One!') }}{% endif %}"
    )
    two = HELLO.replace("}]", '}, {"role": "assistant", "content": "ho"}]')
    with serving(
        GGUFProvider(GGUFConfig(model=str(tools_model), n_threads=1, chat_template=template))
    ) as picky:
        body = f'{{{two}, "stream": {stream}}}'
        response = picky.post("chat/completions", content=body.encode())
        assert picky.post("chat/completions", content=f"{{{HELLO}}}".encode()).status_code == 200
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["type"]) == ("messages", "invalid_request_error")
    assert error["message"].endswith("refuses this conversation: One!")
