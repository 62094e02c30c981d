"""Tools for templates that know none: described in the system message, written out as text."""

from __future__ import annotations

from mofa_gguf.chat import ChatTemplate, describe_tools
from mofa_gguf.contract import ChatMessage, Tool, ToolCall

TOOL = Tool.function("add", "Adds.", {"properties": {"a": {"type": "number"}}})
ASK = ChatMessage.user("1+1?")


def test_tools_are_described_in_the_system_message(strict: ChatTemplate) -> None:
    first, user = describe_tools([ChatMessage.system("Be brief."), ASK], [TOOL])
    assert first["role"] == "system"
    assert first["content"].startswith("Be brief.\n\nYou can call functions.")
    assert '{"name": "add", "description": "Adds.", "parameters"' in first["content"]
    assert user == {"role": "user", "content": "1+1?"}
    assert "<tool_call>" in strict.render([first, user])


def test_without_a_system_message_there_is_one_then() -> None:
    assert [message["role"] for message in describe_tools([ASK], [TOOL])] == ["system", "user"]


def test_without_tools_nothing_is_described() -> None:
    assert describe_tools([ASK], []) == [{"role": "user", "content": "1+1?"}]


def test_calls_and_results_become_text_that_any_template_takes(strict: ChatTemplate) -> None:
    calls = [ToolCall.new("1", "add", {"a": 1}), ToolCall.new("2", "add", {"a": 2})]
    messages = describe_tools(
        [
            ASK,
            ChatMessage.assistant_with_tool_calls(calls),
            ChatMessage.tool_result("1", "one"),
            ChatMessage.tool_result("2", "two"),
            ChatMessage.assistant("Done."),
        ],
        [TOOL],
    )
    rendered = strict.render(messages, add_generation_prompt=False)
    assert (
        "<turn>assistant\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call></turn>\n'
        "<turn>user\n<tool_response>\none\n</tool_response>\n"
        "<tool_response>\ntwo\n</tool_response></turn>\n"
        "<turn>assistant\nDone.</turn>\n"
    ) in rendered


def test_answers_in_the_described_format_are_read(strict: ChatTemplate) -> None:
    message = strict.parse(
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', [TOOL]
    )
    assert [call.function.name for call in message.tool_calls or []] == ["add"]
