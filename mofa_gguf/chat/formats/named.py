"""Calls written as a name and a JSON object of arguments, each between marks.

Formats: the chat templates that DeepSeek V3, R1 and V3.1, Kimi K2, Functionary and Llama 3 with
function tags are published with.
"""

from __future__ import annotations

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.formats.base import CallReader, Opening
from mofa_gguf.chat.formats.layout import Layout, named_json

_DEEPSEEK_BEGIN, _DEEPSEEK_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"

DEEPSEEK_R1 = named_json(
    "deepseek-r1",
    Layout(
        begin=_DEEPSEEK_BEGIN,
        open="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        middle="\n```json\n",
        close="\n```<｜tool▁call▁end｜>",
        between="\n",
        end=_DEEPSEEK_END,
    ),
)
DEEPSEEK_V3_1 = named_json(
    "deepseek-v3.1",
    Layout(
        begin=_DEEPSEEK_BEGIN,
        open="<｜tool▁call▁begin｜>",
        middle="<｜tool▁sep｜>",
        close="<｜tool▁call▁end｜>",
        end=_DEEPSEEK_END,
    ),
)
KIMI_K2 = named_json(
    "kimi-k2",
    Layout(
        begin="<|tool_calls_section_begin|>",
        open="<|tool_call_begin|>functions.",
        middle=":{number}<|tool_call_argument_begin|>",
        close="<|tool_call_end|>",
        end="<|tool_calls_section_end|>",
    ),
)
FUNCTION_TAG = named_json(
    "function-tag",
    Layout(open="<function=", middle=">", close="</function>"),
)


def _functionary_bare(reader: CallReader) -> Reading[bool]:
    """The prompt ends with ``>>>``, so an answer begins with a name."""
    return (yield from FUNCTIONARY.read(reader, ">>>"))


FUNCTIONARY = named_json(
    "functionary",
    Layout(open=">>>", middle="\n"),
    read_bare=_functionary_bare,
    leads=("all\n",),
    openings=(
        Opening(">>>", names="{name}\n"),
        Opening(">>>", names="{name}\n", at_start=True, in_prompt=True),
    ),
    frame=("all\n", ""),
    dropped=(">>>all\n",),
)

FORMATS = (DEEPSEEK_R1, DEEPSEEK_V3_1, KIMI_K2, FUNCTION_TAG, FUNCTIONARY)
