"""The chat template of the demo model, and the special tokens that it uses.

ChatML turns; tools in the form that Hermes models use: calls as JSON between ``<tool_call>``
marks, results between ``<tool_response>`` marks. Tool definitions are listed in a compact form,
one JSON line a tool with its name, description and the names of its arguments, because a model
of this size cannot use the rest and a short prompt is fast.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import jinja2

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

CHAT_TEMPLATE = """\
{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content is iterable and content is not mapping -%}
        {%- for part in content -%}
            {%- if part.text is defined -%}{{- part.text -}}{%- endif -%}
        {%- endfor -%}
    {%- elif content -%}
        {{- content | tojson -}}
    {%- endif -%}
{%- endmacro -%}
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- if has_system or tools -%}
    {{- '<|im_start|>system\\n' -}}
    {%- if has_system -%}{{- text_of(messages[0].content) -}}{%- endif -%}
    {%- if tools -%}
        {{- ('\\n\\n' if has_system else '') + 'You can call these tools:\\n<tools>' -}}
        {%- for tool in tools -%}
            {%- set f = tool.function if tool.function is defined else tool -%}
            {%- set ns = namespace(names=[]) -%}
            {%- if f.parameters and f.parameters.properties -%}
                {%- for name in f.parameters.properties -%}
                    {%- set ns.names = ns.names + [name] -%}
                {%- endfor -%}
            {%- endif -%}
            {{- '\\n{"name": ' + (f.name | tojson) -}}
            {%- if f.description -%}
                {{- ', "description": ' + (f.description | tojson) -}}
            {%- endif -%}
            {{- ', "arguments": ' + (ns.names | tojson) + '}' -}}
        {%- endfor -%}
        {{- '\\n</tools>' -}}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'tool' -%}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}
            {{- '<|im_start|>tool' -}}
        {%- endif -%}
        {{- '\\n<tool_response>\\n' + text_of(message.content) + '\\n</tool_response>' -}}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}
            {{- '<|im_end|>\\n' -}}
        {%- endif -%}
    {%- elif not (loop.first and has_system) -%}
        {{- '<|im_start|>' + message.role + '\\n' + text_of(message.content) -}}
        {%- if message.tool_calls -%}
            {%- for call in message.tool_calls -%}
                {%- set f = call.function if call.function is defined else call -%}
                {{- '\\n' if message.content or not loop.first else '' -}}
                {{- '<tool_call>\\n{"name": ' + (f.name | tojson) + ', "arguments": ' -}}
                {{- f.arguments if f.arguments is string else (f.arguments | tojson) -}}
                {{- '}\\n</tool_call>' -}}
            {%- endfor -%}
        {%- endif -%}
        {{- '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


@lru_cache(maxsize=1)
def _compiled() -> jinja2.Template:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(CHAT_TEMPLATE)


def render(
    messages: Sequence[dict[str, Any]],
    tools: Sequence[dict[str, Any]] = (),
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Render a conversation the way transformers does."""
    return _compiled().render(
        messages=list(messages),
        tools=list(tools) or None,
        add_generation_prompt=add_generation_prompt,
    )
