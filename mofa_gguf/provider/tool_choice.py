"""``tool_choice`` "required" and by name: answers that cannot be anything but calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mofa_gguf.chat import CallsNotDescribable
from mofa_gguf.contract import (
    ChatCompletionRequest,
    ConfigError,
    ProviderNotSupported,
    SpecificToolChoice,
    Tool,
    ToolChoice,
)
from mofa_gguf.engine.constraint import Constraint
from mofa_gguf.engine.errors import ConstraintError

if TYPE_CHECKING:
    from mofa_gguf.provider.loaded import LoadedModel, Prompt


def forces_call(request: ChatCompletionRequest) -> bool:
    """Whether the request leaves no choice but to call a tool."""
    choice = request.tool_choice
    return choice is ToolChoice.REQUIRED or isinstance(choice, SpecificToolChoice)


def check_tool_choice(request: ChatCompletionRequest) -> None:
    """Raises ConfigError when a call is wanted and the tool is not among those offered."""
    if forces_call(request):
        _choosable(request)


def call_constraint(
    model: LoadedModel, request: ChatCompletionRequest, prompt: Prompt
) -> Constraint:
    """The constraint under which the answer is a call of a tool that the request allows.

    "required" lets the model call several tools where its template knows that; a tool asked for by
    name is called once. Reasoning that the prompt has opened comes first.

    Raises ProviderNotSupported when the model's call format, or a tool's arguments in it, cannot
    be enforced, ConfigError when a tool's schema cannot be.
    """
    parallel = request.tool_choice is ToolChoice.REQUIRED
    try:
        grammar = model.template.call_grammar(
            _choosable(request), prompt.text, parallel=parallel, tokens=_mark_tokens(model)
        )
    except CallsNotDescribable as error:
        raise ProviderNotSupported(str(error), provider="gguf") from error
    try:
        return model.constraints.lark(grammar)
    except ConstraintError as error:
        raise ConfigError(
            f"a call of these tools cannot be enforced ({error}); "
            "simplify their parameters or use tool_choice 'auto'",
            field="tools",
        ) from error


def _choosable(request: ChatCompletionRequest) -> list[Tool]:
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


def _mark_tokens(model: LoadedModel) -> dict[str, int]:
    """Those marks of the call format that are tokens of the vocabulary's own, with their ids."""
    marks = model.template.call_marks
    found = {}
    for special in {*model.vocab.control_texts(), *model.vocab.tag_texts()}:
        if len(special) < 2 or not any(special in mark for mark in marks):
            continue
        tokens = model.vocab.tokenize(special, parse_special=True)
        # The end of a generation is never part of it.
        if len(tokens) == 1 and tokens[0] not in model.engine.model.eog_ids:
            found[special] = tokens[0]
    return found
