"""The conversation with tools: ask, run what the model calls, tell it the results, ask again.

After MoFA's ``send_with_tools``: a tool that fails does not end the conversation, its error becomes
the result text, ``Error: ...``; and the rounds are bounded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from mofa_gguf.contract.base import explain_validation
from mofa_gguf.contract.errors import ConfigError, LLMError, Other, Timeout
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse, Usage
from mofa_gguf.contract.tools import Tool, ToolCall, ToolChoice
from mofa_gguf.host.errors import ToolRoundsExceeded
from mofa_gguf.host.function_tools import FunctionTool
from mofa_gguf.host.tool_executor import FunctionExecutor, ToolExecutor, unknown_tool

log = logging.getLogger(__name__)

AnyTool = Callable[..., Any] | FunctionTool | Tool | dict[str, Any]
"""A Python function, or a definition (a dict is one in JSON shape) that an executor runs."""

Chat = Callable[[ChatCompletionRequest], Awaitable[ChatCompletionResponse]]


def several(tools: Iterable[AnyTool]) -> list[AnyTool]:
    """The tools as a list. Raises ConfigError for one tool, or none at all."""
    if not isinstance(tools, Iterable):
        raise ConfigError(
            f"tools is no list but a {type(tools).__name__}; give a list of tools", field="tools"
        )
    return list(tools)


@dataclass(frozen=True)
class ToolLimits:
    """How long and how much a model may call tools.

    ``max_rounds`` is how many answers with calls are acted upon; ``timeout_s`` is for each call;
    of the calls of one answer, ``max_parallel`` run at a time.
    """

    max_rounds: int = 10
    timeout_s: float = 30.0
    max_parallel: int = 16

    def __post_init__(self) -> None:
        whole = all(isinstance(n, int) for n in (self.max_rounds, self.max_parallel))
        seconds = isinstance(self.timeout_s, int | float) and self.timeout_s > 0
        if not (whole and seconds) or self.max_rounds < 0 or self.max_parallel < 1:
            raise ConfigError(
                "tool limits must be positive, and max_rounds at least 0, "
                f"not max_rounds={self.max_rounds!r}, timeout_s={self.timeout_s!r}, "
                f"max_parallel={self.max_parallel!r}",
                field="tools",
            )


@dataclass(frozen=True)
class ToolCallRecord:
    """One call that was run: in which round (from 1), what was told to the model, and how long.

    ``error`` is what the tool raised, None where it succeeded.
    """

    call: ToolCall
    round: int
    result: str
    duration_s: float
    error: BaseException | None = None


@dataclass(frozen=True)
class RunResult:
    """The end of a conversation with tools.

    ``messages`` is all of it, from the first message given to the answer; ``calls`` are in the
    order the model made them; ``usage`` sums up the requests, None where no response had one.
    """

    answer: str
    messages: list[ChatMessage]
    calls: list[ToolCallRecord]
    usage: Usage | None
    response: ChatCompletionResponse = field(repr=False)
    n_given: int = field(default=0, repr=False)

    @property
    def new_messages(self) -> list[ChatMessage]:
        """The messages that were not given: calls, results and the answer."""
        return self.messages[self.n_given :]


def _definition(tool: Tool | dict[str, Any], where: str) -> Tool:
    """A tool's definition. Raises ConfigError, which names ``where``, for a dict that is none."""
    if isinstance(tool, Tool):
        return tool
    try:
        return Tool.model_validate(tool)
    except ValidationError as error:
        field, problem = explain_validation(error)
        raise ConfigError(
            f"{where} is no tool: {problem}; a definition has the form "
            '{"type": "function", "function": {"name", "description", "parameters"}}',
            field=f"{where}.{field}" if field else where,
        ) from error


@dataclass(frozen=True)
class Toolbox:
    """The tools a model is told of, and what runs each."""

    definitions: list[Tool]
    executors: dict[str, ToolExecutor]

    @classmethod
    async def of(cls, tools: Iterable[AnyTool], executor: ToolExecutor | None = None) -> Toolbox:
        """Sort out functions, which run here, and definitions, which ``executor`` runs.

        Without any definition, all the tools that the executor offers are taken.

        Raises:
            ConfigError: something cannot be a tool, two tools have one name, or there are
                definitions and no executor.
        """
        functions: list[Callable[..., Any] | FunctionTool] = []
        given: list[Tool] = []
        for number, tool in enumerate(tools):
            if isinstance(tool, Tool | dict):
                given.append(_definition(tool, f"tools.{number}"))
            elif isinstance(tool, FunctionTool) or callable(tool):
                functions.append(tool)
            else:
                raise ConfigError(
                    f"tools.{number} is no tool but of the type {type(tool).__name__}; give a "
                    "Python function or a definition",
                    field=f"tools.{number}",
                )
        own = FunctionExecutor(functions)
        if executor is None and given:
            raise ConfigError(
                f"the tool {given[0].function.name!r} is a definition without anything that runs "
                "it; give a Python function, or an executor beside the definitions",
                field="tools",
            )
        box = cls([], {})
        box._add(await own.available_tools(), own)
        if executor is not None:
            box._add(given or await executor.available_tools(), executor)
        return box

    def _add(self, tools: Iterable[Tool], executor: ToolExecutor) -> None:
        for tool in tools:
            name = tool.function.name
            if name in self.executors:
                raise ConfigError(f"two tools have the name {name!r}", field="tools")
            self.definitions.append(tool)
            self.executors[name] = executor

    async def execute(self, call: ToolCall) -> str:
        """A call's result; raises whatever the tool raises."""
        name = call.function.name
        if name not in self.executors:
            raise unknown_tool(name, self.executors)
        return await self.executors[name].execute(name, call.function.arguments)


async def run_tools(
    chat: Chat,
    request: ChatCompletionRequest,
    toolbox: Toolbox,
    limits: ToolLimits,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> RunResult:
    """Ask until the model answers without calling a tool.

    A forced ``tool_choice`` holds for the first request only: the model could never answer
    otherwise.

    Raises:
        ToolRoundsExceeded: the model still calls tools after ``max_rounds``; it has the trace.
        LLMError: whatever ``chat`` raises.
    """
    if toolbox.definitions:
        request = request.with_tools(toolbox.definitions)
    n_given = len(request.messages)
    records: list[ToolCallRecord] = []
    usage: Usage | None = None
    for round_number in range(1, limits.max_rounds + 2):
        response = await chat(request)
        usage = _sum(usage, response.usage)
        calls = response.tool_calls() or []
        if response.choices:
            request = request.message(response.choices[0].message)
        if not calls:
            answer = response.content() or ""
            return RunResult(answer, request.messages, records, usage, response, n_given)
        if round_number > limits.max_rounds:
            break
        done = await _run_calls(calls, round_number, toolbox, limits, clock)
        records += done
        results = [ChatMessage.tool_result(record.call.id, record.result) for record in done]
        request = _freed(request).model_copy(update={"messages": [*request.messages, *results]})
    raise ToolRoundsExceeded(limits.max_rounds, messages=request.messages, calls=records)


async def _run_calls(
    calls: list[ToolCall],
    round_number: int,
    toolbox: Toolbox,
    limits: ToolLimits,
    clock: Callable[[], float],
) -> list[ToolCallRecord]:
    places = asyncio.Semaphore(limits.max_parallel)

    async def run(call: ToolCall) -> ToolCallRecord:
        async with places:
            started = clock()
            error: BaseException | None = None
            try:
                result = await _within(toolbox.execute(call), call, limits.timeout_s)
            except Exception as raised:  # noqa: BLE001 - foreign code: the model is told of it
                error, result = raised, f"Error: {_reason(raised)}"
                log.info("tool %s failed: %s", call.function.name, _reason(raised))
            return ToolCallRecord(call, round_number, result, clock() - started, error)

    return list(await asyncio.gather(*map(run, calls)))


async def _within(result: Coroutine[Any, Any, str], call: ToolCall, timeout_s: float) -> str:
    """Await a tool's result for a while.

    A tool that is late is cancelled and not waited for: it might take no notice.
    """
    task = asyncio.create_task(result)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if task.done() and not task.cancelled():
            return task.result()
        if task.done():
            raise Other(f"the tool {call.function.name!r} was cancelled")
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
    raise Timeout(
        f"the tool {call.function.name!r} gave no result within {timeout_s:g} s",
        timeout_s=timeout_s,
    )


def _forget(task: asyncio.Task[str]) -> None:
    """Take notice of a late tool's end, which asyncio would otherwise complain about."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("a tool that was given up failed: %s", error)


def _freed(request: ChatCompletionRequest) -> ChatCompletionRequest:
    if request.tool_choice in (None, ToolChoice.NONE):
        return request
    return request.model_copy(update={"tool_choice": ToolChoice.AUTO})


def _reason(error: BaseException) -> str:
    """An error as a model is told of it: MoFA's sentences alone, others with their class."""
    if isinstance(error, LLMError):
        return error.message
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _sum(total: Usage | None, usage: Usage | None) -> Usage | None:
    if total is None or usage is None:
        return total or usage
    return Usage.new(
        total.prompt_tokens + usage.prompt_tokens,
        total.completion_tokens + usage.completion_tokens,
    )
