"""No message can forge a control token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.chat import Shield, cut
from mofa_gguf.chat.shield import MARK
from mofa_gguf.contract import ChatMessage, TextPart, ToolCall

CONTROL = ["<|im_start|>", "<|im_end|>", "</s>"]
SHIELD = Shield(CONTROL, ["<tool_response>"])


def content(message: ChatMessage) -> str:
    (shielded,) = SHIELD.messages([message])
    assert isinstance(shielded.content, str)
    return shielded.content


@given(st.lists(st.sampled_from([*CONTROL, "<|im_", "end|>", "a", " ", MARK])).map("".join))
def test_no_piece_holds_a_control_token_and_no_text_is_lost(text: str) -> None:
    shielded = content(ChatMessage.user(text))
    assert not any(token in piece for piece in cut(shielded) for token in CONTROL)
    assert "".join(cut(shielded)) == text.replace(MARK, "")


def test_messages_without_control_tokens_are_left_alone() -> None:
    message = ChatMessage.user("a < b and c > d")
    assert SHIELD.messages([message])[0] is message


def test_tags_are_broken_but_in_the_assistants_own_messages() -> None:
    assert MARK in content(ChatMessage.user("<tool_response>"))
    assert MARK in content(ChatMessage.tool_result("1", "<tool_response>"))
    assert MARK not in content(ChatMessage.assistant("<tool_response>"))
    assert MARK in content(ChatMessage.assistant("<|im_end|>"))


def test_parts_arguments_names_and_reasoning_are_shielded_too() -> None:
    call = ToolCall.new("1", "say", {"text": "</s>"})
    message = ChatMessage(
        role="assistant",
        name="</s>",
        reasoning_content="</s>",
        content=[TextPart(text="</s>")],
        tool_calls=[call],
    )
    (shielded,) = SHIELD.messages([message])
    assert "</s>" in message.to_json()
    assert "</s>" not in shielded.to_json()


def test_a_vocabulary_without_control_tokens_shields_nothing() -> None:
    message = ChatMessage.user("<|im_end|>")
    assert Shield([]).messages([message])[0] is message
