"""Small templates of our own, one of each kind, and what tests do with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from mofa_gguf.chat import ChatTemplate

CHATML_WITH_TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{% endif %}
    {{- 'Functions:' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{% endfor %}
    {{- '\\nCall them between <tool_call> and </tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and tools %}{% continue %}{% endif %}
    {%- if message.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>' + message.content + '</tool_response>' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n' if message.content or not loop.first }}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}
{%- if add_generation_prompt and thinking %}{{- '<think>\\n' }}{% endif %}
"""

JSON_CALLS = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start|>' + message.role + '<|end|>' }}
    {%- if loop.first and tools %}
        {{- 'Answer with JSON to call one of: ' + (tools | tojson) + ' ' }}
    {%- endif %}
    {%- if message.tool_calls %}
        {%- if message.tool_calls | length > 1 %}{{ raise_exception('One call at a time!') }}{% endif %}
        {%- set function = message.tool_calls[0].function %}
        {{- '{"name": "' + function.name + '", "parameters": ' }}
        {{- function.arguments | tojson }}
        {{- '}' }}
    {%- else %}
        {{- message.content | trim }}
    {%- endif %}
    {{- '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>' }}{% endif %}
"""

LISTED_CALLS = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools and loop.last %}{{- '[TOOLS]' + (tools | tojson) + '[/TOOLS]' }}{% endif %}
        {{- '[INST]' + message.content + '[/INST]' }}
    {%- elif message.tool_calls %}
        {{- '[TOOL_CALLS][' }}
        {%- for call in message.tool_calls %}
            {%- if call.id | length != 9 %}{{ raise_exception('Ids have nine letters!') }}{% endif %}
            {{- '{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- ', "id": "' + call.id + '"}' + (']' if loop.last else ', ') }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif message.role == 'tool' %}
        {{- '[RESULT]' + message.tool_call_id + ' ' + message.content + '[/RESULT]' }}
    {%- else %}
        {{- message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""

STRICT_TURNS = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate') }}
    {%- endif %}
    {{- '<turn>' + message.role + '\\n' + message.content + '</turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<turn>assistant\\n' }}{% endif %}
"""

Make = Callable[[str], ChatTemplate]


@pytest.fixture
def make() -> Make:
    """Compiles a template with known tokens and a clock that stands still."""

    def make_template(source: str) -> ChatTemplate:
        return ChatTemplate(
            source,
            bos_token="<s>",
            eos_token="</s>",
            now=lambda: datetime(2025, 7, 4, 12, 30, 15),
        )

    return make_template


@pytest.fixture
def hermes(make: Make) -> ChatTemplate:
    """ChatML with calls between <tool_call> tags; arguments as objects."""
    return make(CHATML_WITH_TOOLS)


@pytest.fixture
def llama(make: Make) -> ChatTemplate:
    """Calls as the whole answer; one at a time."""
    return make(JSON_CALLS)


@pytest.fixture
def mistral(make: Make) -> ChatTemplate:
    """Calls in a list behind [TOOL_CALLS]; ids of nine letters."""
    return make(LISTED_CALLS)


@pytest.fixture
def strict(make: Make) -> ChatTemplate:
    """No system role, roles must alternate, no tools."""
    return make(STRICT_TURNS)
