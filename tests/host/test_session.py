"""Conversations that remember themselves, and what they do when they grow too long."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    ContextLengthExceeded,
    LLMError,
    ModelCapabilities,
    ModelInfo,
    NetworkError,
    Other,
    Role,
    SerializationError,
    TextPart,
    Tool,
    ToolCall,
)
from mofa_gguf.host import (
    AsyncChatSession,
    AsyncLLMClient,
    ChatSession,
    FallbackChain,
    LLMClient,
    LLMRetryPolicy,
    RetryingProvider,
    TokenBudgetConfig,
    ToolRoundsExceeded,
)
from mofa_gguf.host.testing import Reply, ScriptedProvider

CALL = ChatMessage.assistant_with_tool_calls([ToolCall.new("c", "double", {"n": 2})])


def double(n: int) -> int:
    return 2 * n


class Small(ScriptedProvider):
    """A model with a small context, in which every message is as many tokens as it has words."""

    def __init__(self, n_ctx: int, replies: Sequence[Reply] | None = None, **settings: Any) -> None:
        super().__init__(replies)
        self.n_ctx = n_ctx
        self.tells_size = settings.get("tells_size", True)
        self.counts = settings.get("counts", True)

    async def get_model_info(self, model: str) -> ModelInfo:
        window = self.n_ctx if self.tells_size else None
        capabilities = ModelCapabilities(streaming=True)
        return ModelInfo(id="m", name="m", context_window=window, capabilities=capabilities)

    async def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] | None = None
    ) -> int:
        if not self.counts:
            raise NetworkError("the counter is down")
        words = sum(len((message.text_content() or "").split()) for message in messages)
        return words + 10 * len(tools or ())

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        counted = Small(0)
        n_tokens = await counted.count_tokens(request.messages, request.tools)
        if n_tokens > self.n_ctx:
            self.requests.append(request)
            raise ContextLengthExceeded("too long", n_tokens=n_tokens, n_ctx=self.n_ctx)
        async for chunk in super().chat_stream(request):
            yield chunk


def session_of(provider: ScriptedProvider, **settings: Any) -> AsyncChatSession:
    return AsyncLLMClient(provider).session(**settings)


def texts(messages: Sequence[ChatMessage]) -> list[str | None]:
    return [message.text_content() for message in messages]


def sent(provider: ScriptedProvider, n: int = -1) -> list[str | None]:
    return texts(provider.requests[n].messages)


class TestConversation:
    async def test_every_message_is_sent_with_all_before_it(self) -> None:
        provider = ScriptedProvider(["one", "two"])
        session = session_of(provider, system="Be brief.")
        assert await session.send("first") == "one"
        assert await session.send("second") == "two"
        assert sent(provider) == ["Be brief.", "first", "one", "second"]
        assert texts(session.messages()) == ["first", "one", "second", "two"]
        assert texts(session.context()) == ["Be brief.", "first", "one", "second", "two"]
        assert len(session) == 4

    async def test_content_may_be_text_parts_or_a_message(self) -> None:
        provider = ScriptedProvider()
        session = session_of(provider)
        assert await session.send([TextPart(text="a")]) == "a"
        assert await session.send(ChatMessage.user("b")) == "b"
        with pytest.raises(ConfigError, match=r"messages\.0\.content"):
            await session.send(3)  # type: ignore[arg-type]
        assert len(session) == 4

    async def test_options_of_the_session_and_of_the_message_go_into_the_request(self) -> None:
        provider = ScriptedProvider()
        await session_of(provider, temperature=0, seed=1).send("x", seed=2, max_tokens=5)
        request = provider.requests[0]
        assert (request.temperature, request.max_tokens, request.extra) == (0, 5, {"seed": 2})

    async def test_clearing_forgets_all_but_the_system_prompt(self) -> None:
        provider = ScriptedProvider()
        session = session_of(provider, system="Be brief.")
        await session.send("x")
        session.clear()
        assert len(session) == 0
        await session.send("y")
        assert sent(provider) == ["Be brief.", "y"]

    @pytest.mark.parametrize("error", [NetworkError("x"), CALL])
    async def test_a_message_that_fails_leaves_the_session_as_it_was(self, error: Reply) -> None:
        provider = ScriptedProvider(["one", error, "two"])
        session = session_of(provider)
        await session.send("first")
        with pytest.raises(LLMError):
            await session.send("second", max_tool_rounds=0)
        assert texts(session.messages()) == ["first", "one"]
        assert await session.send("third") == "two"

    async def test_messages_sent_at_once_go_one_after_the_other(self) -> None:
        provider = ScriptedProvider(delay_s=0.001)
        session = session_of(provider)
        await asyncio.gather(session.send("a"), session.send("b"))
        assert texts(session.messages()) == ["a", "a", "b", "b"]

    async def test_the_last_responses_metadata_is_kept(self) -> None:
        session = session_of(ScriptedProvider(["one two"]))
        before = session.last_response_metadata
        await session.send("x")
        metadata = session.last_response_metadata
        assert before is None
        assert metadata is not None
        assert (metadata.model, metadata.total_tokens) == ("scripted", 3)

    async def test_an_empty_session_is_still_a_session(self) -> None:
        assert session_of(ScriptedProvider())
        assert (
            session_of(ScriptedProvider()).session_id != session_of(ScriptedProvider()).session_id
        )

    async def test_settings_can_be_changed_one_by_one(self) -> None:
        provider = ScriptedProvider()
        session = session_of(provider).with_system("S").with_context_window_size(1)
        await session.with_tools([double]).with_token_budget(None).send("x")
        assert sent(provider) == ["S", "x"]
        assert [tool.function.name for tool in provider.requests[0].tools or []] == ["double"]
        assert (session.system_prompt, session.context_window_size) == ("S", 1)


class TestTools:
    async def test_calls_and_results_are_part_of_the_conversation(self) -> None:
        provider = ScriptedProvider([CALL, "four", "yes"])
        session = session_of(provider, tools=[double])
        assert await session.send("twice two?") == "four"
        await session.send("sure?")
        assert [m.role for m in session.messages()] == [
            Role.USER,
            Role.ASSISTANT,
            Role.TOOL,
            Role.ASSISTANT,
            Role.USER,
            Role.ASSISTANT,
        ]
        assert sent(provider) == ["twice two?", None, "4", "four", "sure?"]

    async def test_too_many_rounds_leave_the_session_as_it_was(self) -> None:
        session = session_of(ScriptedProvider([CALL] * 3), tools=[double])
        with pytest.raises(ToolRoundsExceeded):
            await session.send("?", max_tool_rounds=1)
        assert len(session) == 0

    async def test_tools_run_once_even_if_the_prompt_is_too_long_on_the_way(self) -> None:
        runs = []

        def tell() -> str:
            """Tell."""
            runs.append(1)
            return "one two three four five six"

        call = ChatMessage.assistant_with_tool_calls([ToolCall.new("c", "tell")])
        provider = Small(29, ["a b c d e", call, "done"], tells_size=False)
        session = session_of(provider, tools=[tell])
        await session.send("p q r s t")
        assert await session.send("go on then please") == "done"
        assert (len(runs), sent(provider)) == (
            1,
            ["go on then please", None, "one two three four five six"],
        )
        assert sent(provider, -2)[0] == "p q r s t"  # which was too long


class TestStreams:
    async def test_a_streamed_answer_is_remembered_too(self) -> None:
        provider = ScriptedProvider(["hello you", "two"])
        session = session_of(provider)
        assert [piece async for piece in session.send_stream("first")] == ["hell", "o yo", "u"]
        await session.send("second")
        assert sent(provider) == ["first", "hello you", "second"]
        assert session.last_response_metadata is not None

    async def test_closing_it_early_leaves_the_session_as_it_was(self) -> None:
        provider = ScriptedProvider(["hello you", "two"])
        session = session_of(provider)
        stream = session.send_stream("first")
        await anext(stream)
        await stream.aclose()
        assert (len(session), provider.n_open_streams) == (0, 0)
        assert await session.send("second") == "two"

    async def test_a_prompt_that_is_too_long_is_streamed_with_less(self) -> None:
        provider = Small(8, ["a b c", "d"], tells_size=False)
        session = session_of(provider)
        await session.send("one two three")
        assert [piece async for piece in session.send_stream("four five six")] == ["d"]
        assert sent(provider) == ["four five six"]

    async def test_tools_are_refused(self) -> None:
        session = session_of(ScriptedProvider(), tools=[double])
        with pytest.raises(ConfigError, match="send_stream runs no tools"):
            await anext(session.send_stream("x"))


class TestWindow:
    async def test_the_model_sees_as_many_turns_as_the_window_has(self) -> None:
        provider = ScriptedProvider()
        session = session_of(provider, system="S", context_window_size=2)
        for text in "abcd":
            await session.send(text)
        assert sent(provider) == ["S", "c", "c", "d"]
        assert texts(session.messages()) == list("aabbccdd")
        assert texts(session.context()) == ["S", *"ccdd"]

    async def test_a_window_of_one_turn_sees_the_new_message_alone(self) -> None:
        provider = ScriptedProvider()
        session = session_of(provider, context_window_size=1)
        await session.send("a")
        await session.send("b")
        assert sent(provider) == ["b"]

    def test_a_window_without_turns_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="at least 1, not 0"):
            session_of(ScriptedProvider(), context_window_size=0)


class TestBudget:
    async def talk(self, session: AsyncChatSession, n_turns: int) -> None:
        for n in range(n_turns):
            await session.send(f"{n} b c d e")  # and the same again as the answer: 10 a turn

    @pytest.mark.parametrize("settings", [{}, {"tells_size": False}])
    async def test_old_turns_go_before_the_context_is_full(self, settings: dict[str, Any]) -> None:
        provider = Small(100, **settings)
        budget = TokenBudgetConfig(context_window_tokens=None if not settings else 100)
        session = session_of(provider, token_budget=budget)
        await self.talk(session, 30)
        counter = Small(0)
        sizes = [await counter.count_tokens(r.messages) for r in provider.requests]
        assert max(sizes) <= 80
        assert len(session) == 60
        # Down to half at a time: for several turns the prompts then begin alike.
        beginnings = [sent(provider, n)[0] for n in range(30)]
        assert len(set(beginnings)) == 1 + 22 // 4 + 1

    async def test_the_newest_turns_and_the_system_prompt_stay_whatever_they_take(self) -> None:
        provider = Small(1000)
        budget = TokenBudgetConfig(context_window_tokens=10, keep_last_n=2)
        session = session_of(provider, system="S", token_budget=budget)
        await self.talk(session, 4)
        assert sent(provider) == ["S", "2 b c d e", "2 b c d e", "3 b c d e"]

    async def test_room_is_left_for_the_answer_that_is_asked_for(self) -> None:
        provider = Small(100)
        session = session_of(provider, max_tokens=45)
        await self.talk(session, 20)
        counter = Small(0)
        assert max([await counter.count_tokens(r.messages) for r in provider.requests]) <= 55

    async def test_without_a_counter_the_tokens_are_estimated(self) -> None:
        provider = Small(100, counts=False)
        session = session_of(provider)
        await self.talk(session, 20)
        assert len(sent(provider)) < 20
        assert len(session) == 40

    async def test_without_a_budget_nothing_is_left_out(self) -> None:
        provider = Small(1000)
        provider.n_ctx = 10_000
        session = session_of(provider, token_budget=None)
        await self.talk(session, 30)
        assert len(sent(provider)) == 59

    async def test_what_is_left_out_is_summed_up_if_the_budget_wants_that(self) -> None:
        provider = ScriptedProvider(["A.", "B.", "They said hello.", "C.", "And more.", "D."])
        budget = TokenBudgetConfig(use_llm_summarize=True)
        session = session_of(provider, system="S", token_budget=budget)
        await session.send("a")
        await session.send("b")
        assert await session.force_compress() == 1
        assert provider.requests[2].max_tokens == 256
        assert sent(provider)[1] == "user: a\nassistant: A."
        await session.send("c")
        assert sent(provider) == [
            "S\n\n[Earlier in this conversation: They said hello.]",
            "b",
            "B.",
            "c",
        ]
        await session.force_compress()
        assert str(sent(provider)[1]).startswith("Before that: They said hello.\nuser: b")
        await session.send("d")
        assert sent(provider)[0] == "S\n\n[Earlier in this conversation: And more.]"

    async def test_a_summary_that_fails_costs_the_turns_but_not_the_message(self) -> None:
        provider = ScriptedProvider(["A.", NetworkError("x"), "B."])
        session = session_of(provider, token_budget=TokenBudgetConfig(use_llm_summarize=True))
        await session.send("a")
        assert await session.force_compress() == 1
        await session.send("b")
        assert sent(provider) == ["b"]

    async def test_turns_too_long_for_one_summary_are_summed_up_half_by_half(self) -> None:
        provider = Small(45)
        settings = {"token_budget": TokenBudgetConfig(use_llm_summarize=True)}
        session = session_of(provider, **settings)
        for n in range(2):
            await session.send(f"{n} " + "x " * 5)  # repeated as the answer
        provider.requests.clear()
        provider._replies = iter(["First.", "Second.", "Done."])
        session.with_token_budget(TokenBudgetConfig(target=0.1, use_llm_summarize=True))
        await session.send("y " * 20)
        too_long, first, second, asked = provider.requests
        assert str(texts(too_long.messages)[1]).count("user:") == 2
        assert str(texts(first.messages)[1]).count("user:") == 1
        assert str(texts(second.messages)[1]).startswith("Before that: First.\nuser: 1")
        assert texts(asked.messages)[0] == "[Earlier in this conversation: Second.]"

    async def test_tokens_are_counted_and_summaries_made_by_the_model_that_is_asked(self) -> None:
        class Several(Small):
            counted_by: ClassVar[set[str]] = set()

            def supports_model(self, model: str) -> bool:
                return True

            async def count_tokens(
                self,
                messages: Sequence[ChatMessage],
                tools: Sequence[Tool] | None = None,
                *,
                model: str = "",
            ) -> int:
                self.counted_by.add(model)
                return await super().count_tokens(messages, tools)

        provider = Several(60)
        budget = TokenBudgetConfig(use_llm_summarize=True)
        chain = FallbackChain([RetryingProvider(provider, LLMRetryPolicy()), ScriptedProvider()])
        session = AsyncLLMClient(chain).session(token_budget=budget, model="small")
        await self.talk(session, 6)
        await session.force_compress()
        assert Several.counted_by == {"small"}
        assert {request.model for request in provider.requests} == {"small"}


class TestRecovery:
    async def test_a_prompt_that_is_too_long_is_sent_once_more_with_less(self) -> None:
        provider = Small(50, tells_size=False)
        session = session_of(provider)
        for n in range(9):
            await session.send(f"{n} b c d e")
        assert len(session) == 18
        counter = Small(0)
        sizes = [await counter.count_tokens(r.messages) for r in provider.requests]
        assert max(sizes) > 50  # was tried
        assert sizes[-1] <= 50
        assert sizes[sizes.index(max(sizes)) + 1] <= 25

    async def test_without_a_known_size_half_of_the_past_goes(self) -> None:
        replies: list[Reply] = [*"abcd", ContextLengthExceeded("too long"), "e"]
        provider = ScriptedProvider(replies)
        session = session_of(provider)
        for n in range(5):
            await session.send(str(n))
        assert sent(provider) == ["2", "c", "3", "d", "4"]
        assert texts(session.messages())[:2] == ["0", "a"]

    async def test_twice_too_long_is_an_error_and_leaves_the_session_as_it_was(self) -> None:
        too_long = ContextLengthExceeded("too long")
        provider = ScriptedProvider(["a", "b", too_long, too_long, "c"])
        session = session_of(provider)
        await session.send("0")
        await session.send("1")
        with pytest.raises(ContextLengthExceeded):
            await session.send("2")
        await session.send("3")
        assert sent(provider) == ["0", "a", "1", "b", "3"]

    async def test_a_first_message_that_is_too_long_is_an_error_at_once(self) -> None:
        provider = Small(3)
        with pytest.raises(ContextLengthExceeded):
            await session_of(provider).send("one two three four")
        assert len(provider.requests) == 1

    async def test_forced_compression_hides_the_older_half(self) -> None:
        provider = ScriptedProvider()
        session = session_of(provider)
        assert await session.force_compress() == 0
        for text in "abc":
            await session.send(text)
        assert await session.force_compress() == 2
        assert texts(session.context()) == ["c", "c"]
        assert len(session) == 6


class TestFiles:
    async def test_a_session_goes_on_from_its_file(self, tmp_path: Path) -> None:
        file = tmp_path / "folder" / "session.json"
        first = session_of(
            ScriptedProvider([CALL, "four", "b"]),
            session_id="mine",
            system="S",
            tools=[double],
            context_window_size=9,
        )
        await first.send("一")
        await first.send("two")
        await first.force_compress()
        first.save(file)

        provider = ScriptedProvider(["c"])
        second = AsyncChatSession.load(file, AsyncLLMClient(provider))
        assert second.session_id == "mine"
        assert second.context_window_size == 9
        assert second.messages() == first.messages()
        await second.send("three")
        assert sent(provider) == ["S", "two", "b", "three"]

    async def test_the_file_is_json_and_replaced_as_a_whole(self, tmp_path: Path) -> None:
        file = tmp_path / "session.json"
        session = session_of(ScriptedProvider(), session_id="mine")
        session.save(file)
        await session.send("x")
        session.save(file)
        assert json.loads(file.read_text()) == {
            "session_id": "mine",
            "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}],
            "n_hidden_turns": 0,
        }
        assert list(tmp_path.iterdir()) == [file]  # noqa: ASYNC240

    def test_settings_go_before_what_the_file_says(self, tmp_path: Path) -> None:
        session_of(ScriptedProvider(), system="old").save(tmp_path / "s.json")
        client = AsyncLLMClient(ScriptedProvider())
        assert (
            AsyncChatSession.load(tmp_path / "s.json", client, system="new").system_prompt == "new"
        )

    def test_a_file_is_never_put_in_place_of_a_pipe_or_a_device(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for path in (pipe, Path(os.devnull), tmp_path):
            with pytest.raises(ConfigError, match="no ordinary file"):
                session_of(ScriptedProvider()).save(path)
        assert pipe.is_fifo()

    @pytest.mark.parametrize("name", ["~nobody.json", "n" * 255, os.fsdecode(b"\xff.json")])
    def test_the_file_may_have_any_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        session_of(ScriptedProvider(), system="kept").save(name)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_missing_or_wrong_file_is_named(self, tmp_path: Path) -> None:
        client = AsyncLLMClient(ScriptedProvider())
        with pytest.raises(ConfigError, match=r"none\.json: the session cannot be loaded"):
            AsyncChatSession.load(tmp_path / "none.json", client)
        for n, text in enumerate(["", "[]", "{}", '{"session_id": "x", "messages": 3}', "\xff"]):
            file = tmp_path / f"{n}.json"
            file.write_text(text, encoding="latin-1")
            with pytest.raises(SerializationError, match=rf"{n}\.json: this is no SessionState"):
                AsyncChatSession.load(file, client)

    def test_a_place_that_cannot_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="the session cannot be saved"):
            session_of(ScriptedProvider()).save(tmp_path / "file" / "s.json")
        session = session_of(ScriptedProvider())
        (tmp_path / "folder").mkdir()
        with pytest.raises(ConfigError, match="the session cannot be saved"):
            session.save(tmp_path / "folder")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


class TestSynchronous:
    def test_it_does_what_the_asynchronous_one_does(self, tmp_path: Path) -> None:
        provider = ScriptedProvider([CALL, "four", "hello you", "b", "c"])
        with LLMClient(provider) as client:
            session = client.session(tools=[double]).with_system("S").with_context_window_size(5)
            assert session.send("twice two?") == "four"
            session.with_tools([]).with_token_budget(None)
            assert "".join(session.send_stream("x")) == "hello you"
            assert session.force_compress() == 1
            assert texts(session.context()) == ["S", "x", "hello you"]
            assert (len(session), len(session.messages())) == (6, 6)
            assert session.last_response_metadata is not None
            session.save(tmp_path / "s.json")

            again = ChatSession.load(tmp_path / "s.json", client)
            assert (again.session_id, again.system_prompt) == (session.session_id, "S")
            assert again.context_window_size == 5
            assert again.send("y") == "b"
            again.clear()
            assert len(again) == 0

    def test_it_is_made_as_in_mofa(self) -> None:
        with LLMClient(ScriptedProvider()) as client:
            assert ChatSession.new(client).send("x") == "x"
            session = ChatSession.with_id("mine", client)
            assert session
            assert session.session_id == "mine"

    def test_a_closed_client_ends_its_sessions(self) -> None:
        client = LLMClient(ScriptedProvider())
        session = client.session()
        client.close()
        with pytest.raises(Other, match="the client is closed"):
            session.send("x")
