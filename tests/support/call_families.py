"""The small templates of our own, one for each family of tool-call formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mofa_gguf.chat import ChatTemplate

FOLDER = Path(__file__).parent.parent / "data" / "chat" / "templates"

FORMAT_OF = {
    "apertus_calls": "apertus",
    "chatml_with_tools": "hermes",
    "command_r_calls": "command-r",
    "deepseek_r1_calls": "deepseek-r1",
    "deepseek_v31_calls": "deepseek-v3.1",
    "deepseek_v32_calls": "deepseek-v3.2",
    "deepseek_v4_calls": "deepseek-v4",
    "firefunction_calls": "firefunction",
    "function_tag_calls": "function-tag",
    "function_tags_calls": "function-tags",
    "functionary_calls": "functionary",
    "gemma_calls": "gemma",
    "gigachat_calls": "gigachat",
    "glm_calls": "glm",
    "glm_lines_calls": "glm-lines",
    "granite_3_calls": "granite-3",
    "harmony_calls": "harmony",
    "json_calls": "llama",
    "kimi_k2_calls": "kimi-k2",
    "kimi_k3_calls": "kimi-k3",
    "lfm2_calls": "lfm2",
    "listed_calls": "mistral",
    "minimax_calls": "minimax",
    "mistral_ids_calls": "mistral",
    "mistral_named_calls": "mistral",
    "muse_calls": "muse",
    "nemotron_calls": "nemotron",
    "phi_4_calls": "phi-4",
    "qwen_coder_calls": "qwen-coder",
    "seed_calls": "seed",
    "unknown_fields_calls": "derived",
    "unknown_json_calls": "derived",
    "unknown_named_calls": "derived",
}
"""The format that each of our templates must turn out to have."""

_templates: dict[str, ChatTemplate] = {}


def template(name: str) -> ChatTemplate:
    """One of the templates, compiled once."""
    if name not in _templates:
        source = (FOLDER / f"{name}.jinja").read_text("utf-8")
        _templates[name] = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return _templates[name]


def tool(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """A tool whose arguments are these and no others."""
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    function = {"name": name, "description": "A tool.", "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool(
    "get_weather",
    {
        "city": {"type": "string", "maxLength": 4},
        "days": {"type": "integer", "minimum": 0, "maximum": 99},
        "unit": {"enum": ["C", "F", "deg C"]},
        "exact": {"type": "boolean"},
        "hours": {"type": "array", "items": {"type": "integer", "maximum": 24}, "maxItems": 2},
        "place": {
            "type": "object",
            "properties": {"code": {"type": "string", "maxLength": 3}, "lat": {"type": "number"}},
            "required": ["code"],
            "additionalProperties": False,
        },
    },
    ["city", "days"],
)
CLOCK = tool("clock", {}, [])
TOOLS = [WEATHER, CLOCK]
