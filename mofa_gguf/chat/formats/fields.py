"""Calls whose arguments stand each between tags of their own, as bare text.

Formats: the chat templates that Qwen3-Coder, GLM 4.5 and later, Ling, MiniMax M2, DeepSeek V3.2
and V4, Seed-OSS, MiniCPM5 and Kimi K3 are published with.
"""

from __future__ import annotations

from mofa_gguf.chat.formats.field_layout import Fields, named_fields
from mofa_gguf.chat.formats.layout import Layout

QWEN_CODER = named_fields(
    "qwen-coder",
    Layout(
        open="<tool_call>\n<function=",
        middle=">\n",
        close="</function>\n</tool_call>",
        between="\n",
        also=("<function=",),
    ),
    Fields(open="<parameter=", middle=">\n", close="\n</parameter>\n"),
)
SEED = named_fields(
    "seed",
    Layout(
        open="<seed:tool_call>\n<function=",
        middle=">\n",
        close="</function>\n</seed:tool_call>",
        between="\n",
    ),
    Fields(open="<parameter=", middle=">", close="</parameter>\n"),
)
GLM = named_fields(
    "glm",
    Layout(open="<tool_call>", close="</tool_call>", between="\n"),
    Fields(open="<arg_key>", middle="</arg_key><arg_value>", close="</arg_value>"),
)
GLM_LINES = named_fields(
    "glm-lines",
    Layout(open="<tool_call>", middle="\n", close="\n</tool_call>", between="\n"),
    Fields(open="<arg_key>", middle="</arg_key>\n<arg_value>", close="</arg_value>"),
)
MINIMAX = named_fields(
    "minimax",
    Layout(
        begin="<minimax:tool_call>\n",
        open='<invoke name="',
        middle='">\n',
        close="</invoke>\n",
        end="</minimax:tool_call>",
    ),
    Fields(open='<parameter name="', middle='">', close="</parameter>\n"),
)
FUNCTION_TAGS = named_fields(
    "function-tags",
    Layout(open='<function name="', middle='">', close="</function>", between="\n"),
    Fields(open='<param name="', middle='">', close="</param>", cdata=True),
)
_KIMI_MIDDLE = '" type="string"<|sep|>'
KIMI_K3 = named_fields(
    "kimi-k3",
    Layout(
        begin="<|open|>tools<|sep|>",
        open='<|open|>call tool="',
        middle='" index="{number}"<|sep|>',
        close="<|close|>call<|sep|>",
        end="<|close|>tools<|sep|>",
    ),
    Fields(
        open='<|open|>argument key="',
        middle=_KIMI_MIDDLE,
        close="<|close|>argument<|sep|>",
        typed={
            kind: _KIMI_MIDDLE.replace("string", kind)
            for kind in ("number", "boolean", "object", "array", "null")
        },
    ),
    dropped=(
        "<|open|>response<|sep|>",
        "<|close|>response<|sep|>",
        '<|open|>message role="assistant"<|sep|>',
        "<|close|>message<|sep|>",
        "<|end_of_msg|>",
    ),
    frame=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
)


_DSML = "｜DSML｜"


def _deepseek(section: str) -> tuple[Layout, Fields]:
    mark = _DSML
    layout = Layout(
        begin=f"<{mark}{section}>\n",
        open=f'<{mark}invoke name="',
        middle='">\n',
        close=f"</{mark}invoke>\n",
        end=f"</{mark}{section}>",
    )
    told = dict.fromkeys(("number", "boolean", "object", "array", "null"), '" string="false">')
    fields = Fields(
        open=f'<{mark}parameter name="',
        middle='" string="true">',
        close=f"</{mark}parameter>\n",
        typed=told,
    )
    return layout, fields


DEEPSEEK_V3_2 = named_fields("deepseek-v3.2", *_deepseek("function_calls"), markers=(_DSML,))
DEEPSEEK_V4 = named_fields("deepseek-v4", *_deepseek("tool_calls"), markers=(_DSML,))

FORMATS = (
    QWEN_CODER,
    SEED,
    GLM,
    GLM_LINES,
    MINIMAX,
    FUNCTION_TAGS,
    KIMI_K3,
    DEEPSEEK_V3_2,
    DEEPSEEK_V4,
)
