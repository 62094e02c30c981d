"""What no body may hold is answered with 400 and OpenAI's shape, never with 500."""

from __future__ import annotations

import pytest

from tests.server.serving import Served

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
    ],
)
def test_a_body_that_cannot_be_meant_is_a_bad_request(served: Served, wrong: str) -> None:
    response = served.post("chat/completions", content=f"{{{HELLO}, {wrong}}}".encode())
    assert response.status_code == 400
    assert response.json()["error"]["message"]
