"""What runs the tools that a model calls: MoFA's ``ToolExecutor``, and one for Python functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from mofa_gguf.contract.errors import ConfigError, Other, ProviderNotSupported
from mofa_gguf.contract.tools import Tool
from mofa_gguf.host.function_tools import FunctionTool, result_text
from mofa_gguf.host.names import did_you_mean, listed
from mofa_gguf.host.threads import in_thread


@runtime_checkable
class ToolExecutor(Protocol):
    """Runs tools by name; what it raises is told to the model as ``Error: ...``."""

    async def execute(self, name: str, arguments: str) -> str:
        """The result of calling a tool with arguments as JSON text."""

    async def available_tools(self) -> list[Tool]:
        """The tools it runs; empty where it does not tell."""


class FunctionExecutor:
    """A ``ToolExecutor`` of Python functions.

    Synchronous functions run in a thread each, others in the event loop.

    Raises:
        ConfigError: two functions have one name, or one cannot be a tool.
    """

    def __init__(self, functions: Iterable[Callable[..., Any] | FunctionTool]) -> None:
        self._tools: dict[str, FunctionTool] = {}
        for function in functions:
            tool = function if isinstance(function, FunctionTool) else FunctionTool.of(function)
            if tool.name in self._tools:
                raise ConfigError(
                    f"two tools have the name {tool.name!r}; give one of them another name with "
                    "FunctionTool.of(function, name=...)",
                    field="tools",
                )
            self._tools[tool.name] = tool

    async def available_tools(self) -> list[Tool]:
        """The functions as tools, in the order they were given."""
        return [tool.tool for tool in self._tools.values()]

    async def execute(self, name: str, arguments: str) -> str:
        """Call a function with validated arguments; its result as ``result_text`` writes it.

        Raises:
            ProviderNotSupported: there is no such function.
            SerializationError: the arguments are not what the function takes.
            Other: the function wants the interpreter to exit.
            Exception: whatever else the function raises.
        """
        tool = self._tools.get(name)
        if tool is None:
            raise unknown_tool(name, self._tools)
        call = partial(tool.function, **tool.bind(arguments))
        try:
            result = await (call() if tool.is_async else in_thread(call, name=f"tool-{name}"))
        except SystemExit as error:  # which would end the event loop and every other request
            raise Other(f"the tool {name!r} tried to end the program ({error})") from error
        return result_text(result)


def unknown_tool(name: str, known: Iterable[str]) -> ProviderNotSupported:
    """The error for a call of a tool that there is not."""
    known = list(known)
    return ProviderNotSupported(
        f"there is no tool {name!r}{did_you_mean(name, known)}; there is {listed(known)}",
        known=known,
    )
