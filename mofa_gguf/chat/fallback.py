"""What stands in for a chat template that is missing, or that knows no tools.

**No template at all**: :func:`default_template`, which is ChatML as OpenAI described it
(https://github.com/openai/openai-python/blob/v0.28.1/chatml.md): ``<|im_start|>role``, a line
break, the text, ``<|im_end|>``. Most models that were trained on conversations without saying how
understand it; a base model continues it.

**No tools in the template**: :func:`describe_tools` puts the tools into the system message and the
calls and results of earlier turns into plain text, in the format of
:mod:`mofa_gguf.chat.formats.hermes`. It is for callers to choose; rendering never does it alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mofa_gguf.chat.messages import Message, template_messages, template_tools, text_of
from mofa_gguf.contract import ChatMessage, Tool

_CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}{{ '\\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content or [] -%}{{ part.text }}{%- endfor -%}
{%- endif -%}
<|im_end|>{{ '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant{{ '\\n' }}
{%- endif -%}
"""

_INTRODUCTION = """\
You can call functions. These are the functions, one in a line, as JSON:
{tools}

To call a function, answer with its name and its arguments as a JSON object between these tags:
<tool_call>
{{"name": "function name", "arguments": {{"argument": "value"}}}}
</tool_call>
Several calls are written one after the other. What a function answers comes back between \
<tool_response> and </tool_response>. If no function is needed, answer as usual."""


def default_template() -> str:
    """The Jinja source used for models that carry no chat template: ChatML."""
    return _CHATML


def describe_tools(
    messages: Iterable[ChatMessage | Mapping[str, Any]],
    tools: Iterable[Tool | Mapping[str, Any]] | None,
) -> list[Message]:
    """The conversation with its tools, calls and results written out as text.

    For templates whose ``capabilities.tools`` is False; render the result without tools, and
    parse the answer with ``parser(tools=tools)``, which expects this format then.
    """
    rewritten: list[Message] = []
    for message in template_messages(messages):
        if message.get("tool_calls"):
            rewritten.append(_calls_as_text(message))
        elif message.get("role") == "tool":
            _add_result(rewritten, message)
        else:
            rewritten.append(message)
    definitions = template_tools(tools)
    return rewritten if definitions is None else _with_introduction(rewritten, definitions)


def _with_introduction(messages: list[Message], tools: list[dict[str, Any]]) -> list[Message]:
    lines = (json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    text = _INTRODUCTION.format(tools="\n".join(lines))
    if messages[0].get("role") == "system":
        system = f"{text_of(messages[0].get('content'))}\n\n{text}".lstrip()
        return [{**messages[0], "content": system}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _calls_as_text(message: Message) -> Message:
    pieces = [text_of(message.get("content"))] if message.get("content") else []
    for call in message["tool_calls"]:
        function = call.get("function", call)
        arguments = function.get("arguments", {})
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        name = json.dumps(function.get("name"), ensure_ascii=False)
        body = f'{{"name": {name}, "arguments": {arguments or "{}"}}}'
        pieces.append(f"<tool_call>\n{body}\n</tool_call>")
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**kept, "content": "\n".join(pieces)}


def _add_result(messages: list[Message], result: Message) -> None:
    text = f"<tool_response>\n{text_of(result.get('content'))}\n</tool_response>"
    last = messages[-1] if messages else None
    if last is not None and last.get("tool_results"):
        last["content"] += f"\n{text}"
    else:
        messages.append({"role": "user", "content": text, "tool_results": True})
