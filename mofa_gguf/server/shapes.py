"""OpenAI's shapes that the contract has no type for: said in its own words, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mofa_gguf.host.asked import openai_message
from mofa_gguf.server.errors import HttpError

JsonObject = dict[str, Any]


def message_of(message: Any, where: str) -> Any:
    """A message; what is no object is left to the contract, which says so. Raises HttpError."""
    if not isinstance(message, dict):
        return message
    read = dict(openai_message(message))
    if read.get("role") == "function":
        raise _refused(f"{where}.role", "the role function is retired; send tool and tool_call_id")
    for key, instead in (("function_call", "send tool_calls"), ("audio", "send its transcript")):
        if read.get(key) is not None:
            raise _refused(f"{where}.{key}", f"{key} of a message is not read here; {instead}")
    if read.get("content") is None and read.get("refusal") is not None:
        read["content"] = read["refusal"]
    content = read.get("content")
    if isinstance(content, list):
        read["content"] = [
            _part(part, f"{where}.content.{number}") for number, part in enumerate(content)
        ]
    for number, call in enumerate(_list(read.get("tool_calls"))):
        _check_function(call, "call", f"{where}.tool_calls.{number}")
    return read


def _part(part: Any, where: str) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if part.get("type") == "file":
        raise _refused(where, "files are not read here; send their text")
    return part


def tools_of(body: JsonObject) -> JsonObject:
    """A body whose tools are functions and whose choice is one of the contract's.

    ``allowed_tools`` becomes the tools that it names. Raises HttpError.
    """
    for number, tool in enumerate(_list(body.get("tools"))):
        _check_function(tool, "tool", f"tools.{number}")
    choice = body.get("tool_choice")
    if not isinstance(choice, dict):
        return body
    if choice.get("type") != "allowed_tools":
        _check_function(choice, "choice", "tool_choice")
        return body
    allowed = choice.get("allowed_tools")
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    if not isinstance(allowed, dict) or mode not in ("auto", "required"):
        raise _refused(
            "tool_choice.allowed_tools", 'allowed_tools is {"mode": "auto" or "required", "tools"}'
        )
    offered = {_name(tool): tool for tool in _list(body.get("tools"))}
    names = [_name(tool) for tool in _list(allowed.get("tools"))]
    unknown = [name for name in names if name is None or name not in offered]
    if unknown or not names:
        wrong = (
            "names no tool" if not names else f"names {unknown[0]!r}, which is none of the tools"
        )
        raise _refused("tool_choice.allowed_tools.tools", f"allowed_tools {wrong}")
    return {**body, "tools": [offered[name] for name in names], "tool_choice": mode}


def _check_function(value: Any, kind: str, where: str) -> None:
    said = value.get("type") if isinstance(value, dict) else None
    if said not in (None, "function"):
        raise _refused(where, f"a {kind} of the type {said!r} is not known here; send functions")


def _name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _refused(param: str, message: str) -> HttpError:
    return HttpError(400, message, param=param)
