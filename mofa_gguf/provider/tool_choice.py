"""``tool_choice``: which tools the model is told of, and which it must or may call."""

from __future__ import annotations

import json

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ConfigError,
    SpecificToolChoice,
    Tool,
    ToolChoice,
)

MAX_TOOL_CHARS = 500_000


def offered_tools(request: ChatCompletionRequest) -> list[Tool] | None:
    """The tools the model is told of."""
    return None if request.tool_choice is ToolChoice.NONE else request.tools or None


def forces_call(request: ChatCompletionRequest) -> bool:
    """Whether the request leaves no choice but to call a tool."""
    choice = request.tool_choice
    return choice is ToolChoice.REQUIRED or isinstance(choice, SpecificToolChoice)


def check_tool_choice(request: ChatCompletionRequest) -> None:
    """Raises ConfigError when a call is wanted and the tool is not among those offered.

    So it does for tools whose names do not tell them apart, that are no text, or that are too
    large to be rendered and enforced in reasonable time.
    """
    if forces_call(request):
        choosable(request)
    n_chars = 0
    names: set[str] = set()
    for number, tool in enumerate(offered_tools(request) or ()):
        name = tool.function.name
        if not name or name in names:
            problem = "has no name" if not name else f"is called {name!r}, and so is one before it"
            raise ConfigError(
                f"tools.{number} {problem}; give each tool a name of its own",
                field=f"tools.{number}.function.name",
            )
        names.add(name)
        _check_text(name, "the name", name)
        try:
            n_chars += len(json.dumps(tool.function.parameters))
            text = json.dumps(tool.function.parameters, ensure_ascii=False)
        except (RecursionError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the parameters of the tool {name!r} are no JSON schema ({error})", field="tools"
            ) from error
        _check_text(text, "the parameters", name)
        if n_chars > MAX_TOOL_CHARS:
            raise ConfigError(
                f"the tools have more than {MAX_TOOL_CHARS} characters of parameters at {name!r}; "
                "offer fewer or smaller ones",
                field="tools",
            )


def _check_text(text: str, what: str, name: str) -> None:
    """Half a surrogate pair is no text: neither templates nor grammars can be written with it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{what} of the tool {name!r} cannot be written in UTF-8 ({error.reason}); "
            "send whole characters",
            field="tools",
        ) from error


def choosable(request: ChatCompletionRequest) -> list[Tool]:
    """The tools that may be called."""
    tools, choice = request.tools or [], request.tool_choice
    names = [tool.function.name for tool in tools]
    if not tools:
        raise ConfigError(
            "tool_choice wants a call and there are no tools; send tools or tool_choice 'none'",
            field="tool_choice",
        )
    if not isinstance(choice, SpecificToolChoice):
        return tools
    chosen = [tool for tool in tools if tool.function.name == choice.function.name]
    if not chosen:
        raise ConfigError(
            f"tool_choice names {choice.function.name!r}, which is not among the tools; "
            f"there are {', '.join(names)}",
            field="tool_choice",
            known=names,
        )
    return chosen
