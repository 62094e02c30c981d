"""``chat``: a conversation in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mofa_gguf.cli.chat import Conversation, converse
from mofa_gguf.contract import ContextLengthExceeded
from mofa_gguf.host import LLMClient
from mofa_gguf.host.testing import ScriptedProvider
from tests.cli.conftest import Run

Script = Callable[..., tuple[ScriptedProvider, Conversation]]


@pytest.fixture
def script() -> Iterator[Script]:
    clients = []

    def script(*replies: object, **options: object) -> tuple[ScriptedProvider, Conversation]:
        provider = ScriptedProvider(replies or None, **options)  # type: ignore[arg-type]
        client = LLMClient(provider)
        clients.append(client)
        return provider, Conversation(client)

    yield script
    for client in clients:
        client.close()


def lines(*entered: str | BaseException) -> Callable[[], str]:
    queue = iter(entered)

    def read() -> str:
        line = next(queue, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    return read


def roles_and_texts(provider: ScriptedProvider) -> list[list[tuple[str, str | None]]]:
    return [
        [(str(message.role), message.text_content()) for message in request.messages]
        for request in provider.requests
    ]


def test_answers_are_streamed_and_remembered(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    provider, conversation = script("Hello.", "Still here.")
    converse(conversation, lines("hi", "", "there?"))
    assert capsys.readouterr().out == "Hello.\nStill here.\n"
    assert roles_and_texts(provider) == [
        [("user", "hi")],
        [("user", "hi"), ("assistant", "Hello."), ("user", "there?")],
    ]


def test_reset_forgets_and_system_starts_afresh(script: Script) -> None:
    provider, conversation = script()
    converse(conversation, lines("a", "/reset", "b", "/system Be brief.", "c", "/system", "d"))
    assert roles_and_texts(provider) == [
        [("user", "a")],
        [("user", "b")],
        [("system", "Be brief."), ("user", "c")],
        [("user", "d")],
    ]


def test_exit_leaves_and_an_unknown_command_is_explained(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    provider, conversation = script()
    converse(conversation, lines("/nonsense", "/help", "/exit", "never said"))
    captured = capsys.readouterr()
    assert "there is no command /nonsense" in captured.err
    assert "/reset" in captured.out
    assert provider.requests == []


def test_an_error_leaves_the_conversation_usable(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    error = ContextLengthExceeded("9 tokens and 8 fit", n_tokens=9, n_ctx=8)
    provider, conversation = script(error, "Better.")
    converse(conversation, lines("too long", "short"))
    captured = capsys.readouterr()
    assert captured.err == "error: Context length exceeded: 9 tokens and 8 fit\n"
    assert captured.out == "Better.\n"
    assert roles_and_texts(provider)[1] == [("user", "short")]


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(
    script: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, conversation = script("one two three four", "Go on.", chunk_chars=4)
    written = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mofa_gguf.cli.streaming._write", write)
        conversation.say("count")
    assert provider.n_cancelled == 1
    assert provider.n_open_streams == 0
    assert "(stopped)" in capsys.readouterr().err
    conversation.say("and then?")
    assert roles_and_texts(provider)[1] == [
        ("user", "count"),
        ("assistant", "one two "),
        ("user", "and then?"),
    ]


def test_ctrl_c_at_the_prompt_does_not_leave(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    _, conversation = script()
    converse(conversation, lines(KeyboardInterrupt(), "hello"))
    captured = capsys.readouterr()
    assert captured.out == "hello\n"
    assert "/exit or Ctrl-D leaves" in captured.err


def test_a_conversation_can_be_piped_in(run: Run, configure: Callable[..., Path]) -> None:
    configure()
    result = run("chat", "--system", "Be brief.", stdin="first\nsecond\n")
    assert (result.code, result.out, result.err) == (0, "first\nsecond\n", "")
