"""Running the tools a model calls, in one conversation to its answer."""

from __future__ import annotations

import asyncio
import contextvars
import json
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    ConfigError,
    LLMProvider,
    Other,
    QuotaExceeded,
    RateLimited,
    Role,
    Timeout,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)
from mofa_gguf.host import (
    AsyncLLMClient,
    FunctionExecutor,
    FunctionTool,
    LLMClient,
    RunResult,
    ToolExecutor,
    ToolRoundsExceeded,
)
from mofa_gguf.host.testing import Reply, ScriptedProvider
from mofa_gguf.host.tool_loop import Toolbox, ToolLimits, run_tools

DEFINITION = Tool.function("search", "Search the web", {"properties": {"query": {}}})


def calls(*named: tuple[str, dict[str, Any]]) -> ChatMessage:
    """A message that calls tools; their ids are c0, c1, ..."""
    return ChatMessage.assistant_with_tool_calls(
        [ToolCall.new(f"c{n}", name, arguments) for n, (name, arguments) in enumerate(named)]
    )


def run(tools: Any, *replies: Reply, **options: Any) -> tuple[RunResult, ScriptedProvider]:
    provider = ScriptedProvider(replies)
    with LLMClient(provider) as client:
        return client.run("What is it like?", tools, **options), provider


def told(tool: Callable[..., Any], **arguments: Any) -> str:
    """What the model is told when it calls this tool."""
    result, _ = run([tool], calls((FunctionTool.of(tool).name, arguments)), "done")
    return result.calls[0].result


def get_weather(city: str) -> dict[str, Any]:
    """The weather."""
    return {"city": city, "celsius": 21}


class Searcher:
    """A tool executor as MoFA has them."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.executed: list[tuple[str, str]] = []

    async def execute(self, name: str, arguments: str) -> str:
        self.executed.append((name, arguments))
        if name == "broken":
            raise QuotaExceeded("no more searches today")
        return "found it"

    async def available_tools(self) -> list[Tool]:
        return [Tool.function(name, name) for name in self.names]


class TestConversation:
    def test_the_model_is_told_of_the_tools_and_of_their_results_and_answers(self) -> None:
        call = calls(("get_weather", {"city": "Beijing"}))
        result, provider = run([get_weather], call, "It is mild.", temperature=0)
        first, second = provider.requests
        assert first.tools == second.tools == [FunctionTool.of(get_weather).tool]
        assert first.temperature == second.temperature == 0
        answer = '{"city":"Beijing","celsius":21}'
        assert second.messages == [
            ChatMessage.user("What is it like?"),
            call,
            ChatMessage.tool_result("c0", answer),
        ]
        assert result.answer == "It is mild."
        assert result.messages == [*second.messages, ChatMessage.assistant("It is mild.")]
        assert result.new_messages == result.messages[1:]
        [record] = result.calls
        assert (record.call.function.name, record.round, record.result, record.error) == (
            "get_weather",
            1,
            answer,
            None,
        )

    def test_an_answer_without_calls_ends_it_at_once(self) -> None:
        result, provider = run([get_weather], "Mild, I think.")
        assert (result.answer, result.calls, len(provider.requests)) == ("Mild, I think.", [], 1)

    def test_without_tools_it_is_a_chat(self) -> None:
        result, provider = run([], "Hello.")
        assert result.answer == "Hello."
        assert provider.requests[0].tools is None

    def test_usage_is_summed_up_over_the_requests(self) -> None:
        result, _ = run([get_weather], calls(("get_weather", {"city": "x"})), "one two")
        # 4 words, then 4 and one of the result; nothing, then 2 words of an answer
        assert result.usage == Usage.new(4 + 5, 0 + 2)

    def test_timings_are_those_of_the_clock(self) -> None:
        async def go() -> RunResult:
            provider = ScriptedProvider([calls(("get_weather", {"city": "x"})), "done"])
            toolbox = await Toolbox.of([get_weather])
            request = ChatCompletionRequest.new().user_message("?")
            ticks = iter([10.0, 12.5])
            return await run_tools(
                provider.chat, request, toolbox, ToolLimits(), clock=lambda: next(ticks)
            )

        assert asyncio.run(go()).calls[0].duration_s == 2.5

    async def test_the_asynchronous_client_does_the_same(self) -> None:
        provider = ScriptedProvider([calls(("get_weather", {"city": "x"})), "done"])
        async with AsyncLLMClient(provider) as client:
            result = await client.run([ChatMessage.user("?")], [get_weather])
        assert (result.answer, len(result.calls)) == ("done", 1)

    def test_a_forced_choice_holds_for_the_first_request_only(self) -> None:
        _, provider = run(
            [get_weather],
            calls(("get_weather", {"city": "x"})),
            "done",
            tool_choice=ToolChoice.specific("get_weather"),
        )
        first, second = provider.requests
        assert first.tool_choice == ToolChoice.specific("get_weather")
        assert second.tool_choice is ToolChoice.AUTO

    def test_errors_of_the_provider_end_it(self) -> None:
        with pytest.raises(RateLimited):
            run([get_weather], calls(("get_weather", {"city": "x"})), RateLimited("full"))


class TestRounds:
    ENDLESS = (calls(("get_weather", {"city": "x"})),) * 20

    def test_after_as_many_rounds_as_allowed_the_error_has_the_trace(self) -> None:
        with pytest.raises(ToolRoundsExceeded) as caught:
            run([get_weather], *self.ENDLESS, max_tool_rounds=2)
        error = caught.value
        assert str(error) == "LLM error: Max tool rounds (2) exceeded"
        assert error.limit == 2
        assert [record.round for record in error.calls] == [1, 2]
        assert [m.role for m in error.messages] == [
            Role.USER,
            *[Role.ASSISTANT, Role.TOOL] * 2,
            Role.ASSISTANT,
        ]

    def test_ten_rounds_are_allowed_unless_said_otherwise(self) -> None:
        with pytest.raises(Other, match=r"Max tool rounds \(10\) exceeded"):
            run([get_weather], *self.ENDLESS)

    def test_no_rounds_means_no_calls(self) -> None:
        assert run([get_weather], "plain", max_tool_rounds=0)[0].answer == "plain"
        with pytest.raises(ToolRoundsExceeded, match=r"\(0\)"):
            run([get_weather], *self.ENDLESS, max_tool_rounds=0)

    def test_an_answer_in_the_last_round_counts(self) -> None:
        call = calls(("get_weather", {"city": "x"}))
        assert run([get_weather], call, call, "done", max_tool_rounds=2)[0].answer == "done"

    def test_the_error_survives_pickling(self) -> None:
        error = ToolRoundsExceeded(3, messages=[ChatMessage.user("x")])
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.limit, copy.messages, str(copy)) == (3, error.messages, str(error))


class TestCalls:
    def test_calls_of_one_answer_run_side_by_side_and_keep_their_order(self) -> None:
        meeting = threading.Barrier(3, timeout=10)

        def meet(n: int) -> int:
            meeting.wait()  # breaks unless all three are here at once
            return n

        result, provider = run(
            [meet], calls(("meet", {"n": 2}), ("meet", {"n": 0}), ("meet", {"n": 1})), "done"
        )
        assert [record.result for record in result.calls] == ["2", "0", "1"]
        answers = [(m.tool_call_id, m.content) for m in provider.requests[1].messages[2:]]
        assert answers == [("c0", "2"), ("c1", "0"), ("c2", "1")]

    def test_no_more_run_at_once_than_allowed(self) -> None:
        running: list[int] = []
        most: list[int] = []

        async def tool() -> None:
            running.append(1)
            most.append(len(running))
            await asyncio.sleep(0)
            running.pop()

        async def go() -> None:
            provider = ScriptedProvider([calls(*[("tool", {})] * 7), "done"])
            toolbox = await Toolbox.of([tool])
            request = ChatCompletionRequest.new().user_message("?")
            await run_tools(provider.chat, request, toolbox, ToolLimits(max_parallel=3))

        asyncio.run(go())
        assert (max(most), len(most)) == (3, 7)

    def test_synchronous_functions_run_in_a_thread_with_the_callers_context(self) -> None:
        variable = contextvars.ContextVar("variable", default="unset")

        def look() -> str:
            return f"{variable.get()} {threading.current_thread().name}"

        async def go() -> str:
            variable.set("set")
            provider = ScriptedProvider([calls(("look", {})), "done"])
            return (await AsyncLLMClient(provider).run("?", [look])).calls[0].result

        assert asyncio.run(go()) == "set tool-look"

    async def test_asynchronous_functions_run_in_the_loop(self) -> None:
        async def look() -> bool:
            return asyncio.get_running_loop() is loop

        loop = asyncio.get_running_loop()
        provider = ScriptedProvider([calls(("look", {})), "done"])
        result = await AsyncLLMClient(provider).run("?", [look])
        assert result.calls[0].result == "true"

    def test_a_tool_may_use_the_client_that_runs_it(self) -> None:
        provider = ScriptedProvider([calls(("ask_again", {})), "inner", "outer"])
        with LLMClient(provider) as client:

            def ask_again() -> str:
                return client.ask("and?")

            result = client.run("?", [ask_again])
        assert (result.calls[0].result, result.answer) == ("inner", "outer")

    def test_arguments_are_validated_and_problems_told_to_the_model(self) -> None:
        assert told(get_weather, town="x") == (
            "Error: the arguments of get_weather are wrong: city: field required; "
            "town: extra inputs are not permitted"
        )

    def test_what_a_tool_raises_is_told_to_the_model_and_recorded(self) -> None:
        def divide(a: int, b: int) -> float:
            return a / b

        result, _ = run([divide], calls(("divide", {"a": 1, "b": 0})), "I cannot.")
        [record] = result.calls
        assert record.result == "Error: ZeroDivisionError: division by zero"
        assert isinstance(record.error, ZeroDivisionError)
        assert result.answer == "I cannot."

    @pytest.mark.parametrize(
        ("error", "text"),
        [
            (KeyError("x"), "Error: KeyError: 'x'"),
            (ValueError(), "Error: ValueError"),
            # What a coroutine makes of it.
            (StopIteration(3), "Error: RuntimeError: coroutine raised StopIteration"),
            (TimeoutError("mine"), "Error: TimeoutError: mine"),
            (QuotaExceeded("no more"), "Error: no more"),
            (SystemExit(2), "Error: the tool 'fail' tried to end the program (2)"),
            (asyncio.CancelledError(), "Error: the tool 'fail' was cancelled"),
        ],
    )
    @pytest.mark.parametrize("is_async", [False, True])
    def test_every_kind_of_error_is_told(
        self, error: BaseException, text: str, is_async: bool
    ) -> None:
        def fail() -> None:
            raise error

        async def fail_later() -> None:
            raise error

        fail_later.__name__ = "fail"
        assert told(fail_later if is_async else fail) == text

    def test_a_call_of_an_unknown_tool_is_answered_with_the_known_ones(self) -> None:
        result, _ = run([get_weather], calls(("get_wether", {"city": "x"})), "done")
        assert result.calls[0].result == (
            "Error: there is no tool 'get_wether' (did you mean 'get_weather'?); "
            "there is get_weather"
        )

    @pytest.mark.parametrize("is_async", [False, True])
    def test_a_tool_that_takes_too_long_is_given_up(self, is_async: bool) -> None:
        release = threading.Event()
        cancelled = threading.Event()

        def slow() -> None:
            release.wait(30)

        async def slowly() -> None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        tool = slowly if is_async else slow
        name = tool.__name__
        started = time.monotonic()
        result, _ = run([tool], calls((name, {})), "done", tool_timeout_s=0.05)
        release.set()
        assert result.calls[0].result == f"Error: the tool {name!r} gave no result within 0.05 s"
        assert isinstance(result.calls[0].error, Timeout)
        assert cancelled.is_set() is is_async
        assert time.monotonic() - started < 10

    def test_closing_the_client_ends_a_run_and_its_tools(self) -> None:
        begun, cancelled = threading.Event(), threading.Event()

        async def slowly() -> None:
            begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        client = LLMClient(ScriptedProvider([calls(("slowly", {})), "done"]))
        errors: list[BaseException] = []

        def work() -> None:
            try:
                client.run("?", [slowly])
            except Other as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(10)
        client.close()
        thread.join(10)
        assert cancelled.wait(10)
        assert "cancelled" in str(errors[0])


class TestExecutors:
    def test_definitions_are_run_by_the_executor_beside_functions(self) -> None:
        searcher = Searcher()
        result, provider = run(
            [get_weather, DEFINITION],
            calls(("search", {"query": "mofa"}), ("get_weather", {"city": "x"})),
            "done",
            executor=searcher,
        )
        assert [t.function.name for t in provider.requests[0].tools or []] == [
            "get_weather",
            "search",
        ]
        assert searcher.executed == [("search", '{"query": "mofa"}')]
        assert result.calls[0].result == "found it"

    def test_a_definition_may_be_a_dict(self) -> None:
        _, provider = run([DEFINITION.to_dict()], "done", executor=Searcher())
        assert provider.requests[0].tools == [DEFINITION]

    def test_without_definitions_all_that_the_executor_offers_is_taken(self) -> None:
        result, provider = run(
            [], calls(("broken", {})), "done", executor=Searcher("search", "broken")
        )
        assert [t.function.name for t in provider.requests[0].tools or []] == ["search", "broken"]
        assert result.calls[0].result == "Error: no more searches today"

    def test_the_tools_of_a_request_are_definitions_too(self) -> None:
        request = ChatCompletionRequest.new().user_message("?").tool(DEFINITION)
        provider = ScriptedProvider([calls(("search", {})), "done"])
        with LLMClient(provider) as client:
            assert client.run(request, executor=Searcher()).calls[0].result == "found it"
            with pytest.raises(ConfigError, match="'search' is a definition without anything"):
                client.run(request)

    def test_a_definition_that_nothing_runs_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="'search' is a definition without anything"):
            run([DEFINITION], "done")

    def test_two_tools_of_one_name_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="two tools have the name 'get_weather'"):
            run([get_weather, get_weather], "done")
        with pytest.raises(ConfigError, match="two tools have the name 'get_weather'"):
            run([get_weather], "done", executor=Searcher("get_weather"))

    def test_limits_must_make_sense(self) -> None:
        with pytest.raises(ConfigError, match="tool limits must be positive"):
            run([], "done", tool_timeout_s=0)

    async def test_functions_alone_make_an_executor(self) -> None:
        executor: ToolExecutor = FunctionExecutor([get_weather])
        assert isinstance(executor, ToolExecutor)
        assert [tool.function.name for tool in await executor.available_tools()] == ["get_weather"]
        assert json.loads(await executor.execute("get_weather", '{"city": "x"}'))["celsius"] == 21


class Silent(LLMProvider):
    """Answers with a response that has neither choices nor usage."""

    def name(self) -> str:
        return "silent"

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        return ChatCompletionResponse(id="x", created=0, model="m", choices=[])


def test_a_response_without_anything_is_an_empty_answer() -> None:
    with LLMClient(Silent()) as client:
        result = client.run("?", [get_weather])
    assert (result.answer, result.usage, result.new_messages) == ("", None, [])
