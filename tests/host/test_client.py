"""The clients: one behaviour, driven by async code and by threads without an event loop."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    EmbeddingRequest,
    EmbeddingResponse,
    Other,
    RateLimited,
    Role,
    ToolCall,
    ToolChoice,
)
from mofa_gguf.host import AsyncLLMClient, LLMClient, LLMConfig, ProviderRegistry
from mofa_gguf.host.testing import ScriptedProvider

CALL = ChatMessage.assistant_with_tool_calls([ToolCall.new("a", "weather")])


@pytest.fixture
def client() -> Generator[LLMClient, None, None]:
    with LLMClient(ScriptedProvider()) as made:
        yield made


def provider_of(client: LLMClient | AsyncLLMClient) -> ScriptedProvider:
    assert isinstance(client.provider, ScriptedProvider)
    return client.provider


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


class Endless(ScriptedProvider):
    """Streams without end; the first chunk only after ``first_delay_s``."""

    def __init__(self, *, first_delay_s: float = 0.0) -> None:
        super().__init__()
        self.first_delay_s = first_delay_s
        self.finalised_in: list[object] = []

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        task = asyncio.current_task()
        self.n_open_streams += 1
        try:
            # A cancel scope across the yields: works only if one task drives the whole stream.
            with anyio.CancelScope():
                await anyio.sleep(self.first_delay_s)
                while True:
                    yield ChatCompletionChunk.from_dict(
                        {
                            "id": "x",
                            "created": 0,
                            "model": "m",
                            "choices": [{"delta": {"content": "again "}}],
                        }
                    )
                    await anyio.lowlevel.checkpoint()
        finally:
            self.n_open_streams -= 1
            self.n_cancelled += 1
            self.finalised_in.append(asyncio.current_task() is task)


class TestAsking:
    def test_ask_returns_the_text(self, client: LLMClient) -> None:
        assert client.ask("hello") == "hello"

    def test_ask_with_system_sends_both_messages(self, client: LLMClient) -> None:
        assert client.ask_with_system("be brief", "hello") == "hello"
        [request] = provider_of(client).requests
        assert [m.role for m in request.messages] == [Role.SYSTEM, Role.USER]

    def test_ask_stream_yields_the_pieces(self, client: LLMClient) -> None:
        assert list(client.ask_stream("hello you")) == ["hell", "o yo", "u"]
        assert provider_of(client).requests[0].stream is True

    def test_chat_returns_the_response_and_stream_its_chunks(self, client: LLMClient) -> None:
        response = client.chat("hello")
        chunks = list(client.stream("hello"))
        assert response.content() == "hello"
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "hello"
        assert chunks[-1].usage == response.usage

    @pytest.mark.parametrize(
        "conversation",
        [
            "hello",
            ChatMessage.user("hello"),
            {"role": "user", "content": "hello"},
            [ChatMessage.user("hello")],
            [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            ChatCompletionRequest.new().user_message("hello"),
        ],
    )
    def test_a_conversation_may_be_given_in_any_form(
        self, client: LLMClient, conversation: Any
    ) -> None:
        assert client.chat(conversation).content() == "hello"

    def test_openais_newer_name_of_the_systems_role_is_read(self, client: LLMClient) -> None:
        asked = [{"role": "developer", "content": "Be brief."}, {"content": "Hi"}]
        client.chat(asked)
        assert [m.role for m in provider_of(client).requests[-1].messages] == ["system", "user"]
        assert asked[0]["role"] == "developer"

    def test_options_are_fields_of_the_request_and_others_go_to_extra(
        self, client: LLMClient
    ) -> None:
        client.ask("hi", temperature=0, max_tokens=5, tool_choice="none", top_k=3, seed=1)
        [request] = provider_of(client).requests
        assert (request.temperature, request.max_tokens) == (0, 5)
        assert request.tool_choice is ToolChoice.NONE
        assert request.extra == {"top_k": 3, "seed": 1}

    def test_options_override_a_requests_own_fields_and_leave_it_unchanged(
        self, client: LLMClient
    ) -> None:
        request = ChatCompletionRequest(
            messages=[ChatMessage.user("hi")], temperature=1.0, extra={"seed": 1}
        )
        client.chat(request, temperature=0, top_k=2)
        sent = provider_of(client).requests[0]
        assert (sent.temperature, sent.extra) == (0, {"seed": 1, "top_k": 2})
        assert (request.temperature, request.extra) == (1.0, {"seed": 1})

    @pytest.mark.parametrize(
        ("arguments", "options", "field"),
        [
            ("hi", {"temperature": "hot"}, "temperature"),
            ("hi", {"max_tokens": -1}, "max_tokens"),
            ([{"role": "bot", "content": "x"}], {}, "messages.0.role"),
            ([3], {}, "messages.0"),
        ],
    )
    def test_a_wrong_option_or_message_is_a_config_error_that_names_it(
        self, client: LLMClient, arguments: Any, options: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            client.chat(arguments, **options)
        assert caught.value.field == field
        assert provider_of(client).requests == []

    def test_an_answer_without_text_says_what_came_instead(self) -> None:
        with (
            LLMClient(ScriptedProvider([CALL])) as client,
            pytest.raises(Other, match="No content in response: the model calls weather; use chat"),
        ):
            client.ask("hi")

    def test_errors_of_the_provider_reach_the_caller_and_the_client_goes_on(self) -> None:
        with LLMClient(ScriptedProvider([RateLimited("full"), RateLimited("f"), "ok"])) as client:
            with pytest.raises(RateLimited, match="full"):
                client.ask("hi")
            with pytest.raises(RateLimited):
                list(client.ask_stream("hi"))
            assert client.ask("hi") == "ok"


class TestDefaults:
    def sent(self, config: LLMConfig | None, **options: Any) -> ChatCompletionRequest:
        with LLMClient(ScriptedProvider(model="own"), config) as client:
            client.ask("hi", **options)
            return provider_of(client).requests[0]

    def test_without_a_config_the_request_is_silent_so_the_models_defaults_hold(self) -> None:
        request = self.sent(None)
        assert (request.model, request.temperature, request.max_tokens) == ("own", None, None)

    def test_a_configs_own_defaults_are_not_the_users_word(self) -> None:
        request = self.sent(LLMConfig(provider="x"))
        assert (request.temperature, request.max_tokens) == (None, None)

    def test_what_a_config_was_given_fills_the_request(self) -> None:
        config = LLMConfig(provider="x", default_temperature=0.7, default_max_tokens=9)
        request = self.sent(config.model("own"))
        assert (request.model, request.temperature, request.max_tokens) == ("own", 0.7, 9)

    def test_what_the_call_says_goes_first(self) -> None:
        config = LLMConfig(provider="x", default_temperature=0.7, default_max_tokens=9)
        request = self.sent(config, temperature=0, max_tokens=1)
        assert (request.temperature, request.max_tokens) == (0, 1)


class Reversing(ScriptedProvider):
    """Answers with its vectors in another order, as a provider may."""

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        response = await super().embedding(request)
        return response.model_copy(update={"data": response.data[::-1]})


class Forgetful(ScriptedProvider):
    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        response = await super().embedding(request)
        return response.model_copy(update={"data": response.data[:-1]})


class TestEmbedding:
    def test_a_batch_is_in_the_order_of_the_texts(self) -> None:
        with LLMClient(Reversing()) as client:
            batch = client.embed_batch(["a", "b", "c"])
            assert batch == [client.embed(text) for text in "abc"]

    def test_no_texts_give_no_vectors_without_asking(self) -> None:
        with LLMClient(Forgetful()) as client:
            assert client.embed_batch([]) == []

    def test_a_missing_vector_is_an_error_not_a_shorter_list(self) -> None:
        with LLMClient(Forgetful()) as client:
            with pytest.raises(Other, match="scripted answered 2 texts with 1 vectors"):
                client.embed_batch(["a", "b"])
            with pytest.raises(Other, match="answered 1 texts with 0 vectors"):
                client.embed("a")

    def test_one_text_is_not_a_batch(self, client: LLMClient) -> None:
        with pytest.raises(ConfigError, match="use embed for one"):
            client.embed_batch("abc")


class TestAsync:
    async def test_the_async_client_says_what_the_sync_client_says(self) -> None:
        async with AsyncLLMClient(ScriptedProvider()) as ours:
            with LLMClient(ScriptedProvider()) as other:
                assert await ours.ask("hi you") == other.ask("hi you")
                assert await ours.ask_with_system("s", "u") == other.ask_with_system("s", "u")
                assert [p async for p in ours.ask_stream("hi you")] == list(
                    other.ask_stream("hi you")
                )
                assert [c async for c in ours.stream("a")] == list(other.stream("a"))
                assert await ours.chat("hi") == other.chat("hi")
                assert await ours.embed("hi") == other.embed("hi")
                assert await ours.embed_batch(["a"]) == other.embed_batch(["a"])

    def test_both_clients_have_the_same_methods(self) -> None:
        def public(kind: type) -> set[str]:
            return {name for name in vars(kind) if not name.startswith("_")}

        assert public(AsyncLLMClient) - {"request"} == public(LLMClient) - {"load"}

    async def test_leaving_an_async_stream_early_closes_the_providers(self) -> None:
        provider = Endless()
        client = AsyncLLMClient(provider)
        pieces = client.ask_stream("hi")
        assert await anext(pieces) == "again "
        await pieces.aclose()
        assert (provider.n_open_streams, provider.n_cancelled) == (0, 1)

    async def test_close_closes_the_provider_unless_told_otherwise(self) -> None:
        mine, shared = ScriptedProvider(), ScriptedProvider()
        await AsyncLLMClient(mine).close()
        await AsyncLLMClient(shared, close_provider=False).close()
        assert (mine.closed, shared.closed) == (True, False)

    async def test_a_provider_may_stream_with_a_plain_iterator(self) -> None:
        class Plain(ScriptedProvider):
            def chat_stream(self, request: ChatCompletionRequest) -> AsyncIterator[Any]:  # type: ignore[override]
                chunks = super().chat_stream(request)

                class Iterator:
                    def __aiter__(self) -> AsyncIterator[Any]:
                        return self

                    async def __anext__(self) -> Any:
                        return await anext(chunks)

                return Iterator()

        assert [p async for p in AsyncLLMClient(Plain()).ask_stream("hey")] == ["hey"]


class TestCancelling:
    def test_closing_the_iterator_closes_the_providers_stream_before_it_returns(self) -> None:
        provider = Endless()
        with LLMClient(provider) as client:
            pieces = client.ask_stream("hi")
            assert next(pieces) == "again "
            pieces.close()
            assert (provider.n_open_streams, provider.n_cancelled) == (0, 1)
            assert provider.finalised_in == [True]

    def test_leaving_the_loop_is_enough(self) -> None:
        provider = Endless()
        with LLMClient(provider) as client:
            for _ in client.stream("hi"):
                break
            assert provider.n_open_streams == 0

    def test_a_stream_can_be_closed_while_it_waits_for_its_first_chunk(self) -> None:
        provider = Endless(first_delay_s=60)
        with LLMClient(provider) as client, ThreadPoolExecutor(1) as pool:
            reading = pool.submit(list, client.ask_stream("hi"))
            wait_until(lambda: provider.n_open_streams == 1)
            started = time.monotonic()
            client.close()
            # "is" if the reader had not yet asked for the first piece.
            with pytest.raises(Other, match=r"client (was|is) closed"):
                reading.result(timeout=5)
            assert time.monotonic() - started < 5
            assert provider.n_open_streams == 0

    def test_an_iterator_that_was_never_started_asks_nothing(self, client: LLMClient) -> None:
        client.ask_stream("hi").close()
        gc.collect()
        assert provider_of(client).requests == []

    def test_a_finished_stream_is_not_cancelled(self, client: LLMClient) -> None:
        pieces = client.ask_stream("hello")
        list(pieces)
        pieces.close()
        assert provider_of(client).n_cancelled == 0

    def test_an_interrupted_call_is_cancelled_in_the_loop(self) -> None:
        class Slow(ScriptedProvider):
            cancelled = False

            async def chat(self, request: ChatCompletionRequest) -> Any:
                self.n_open_streams = 1
                try:
                    await anyio.sleep(60)
                finally:
                    self.cancelled = True

        provider = Slow()

        def interrupt() -> None:
            wait_until(lambda: provider.n_open_streams == 1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        with LLMClient(provider) as client:
            threading.Thread(target=interrupt).start()
            with pytest.raises(KeyboardInterrupt):
                client.ask("hi")
            wait_until(lambda: provider.cancelled)

    def test_an_interrupt_while_the_loop_starts_leaves_a_client_that_works_and_closes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        starting, go_on = threading.Event(), threading.Event()
        started: list[threading.Thread] = []
        run = anyio.run

        def run_late(*arguments: Any) -> None:
            started.append(threading.current_thread())
            if len(started) == 1:
                starting.set()
                go_on.wait(30)
            run(*arguments)

        def interrupt() -> None:
            starting.wait(30)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        monkeypatch.setattr("mofa_gguf.host.portal.anyio.run", run_late)
        client = LLMClient(ScriptedProvider())
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            client.ask("hi")
        assert client.ask("hi") == "hi"
        go_on.set()
        started[0].join(30)
        closing = threading.Thread(target=client.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()
        assert not any(thread.is_alive() for thread in started)


class TestThreads:
    def test_many_threads_share_a_client(self, client: LLMClient) -> None:
        def work(n: int) -> tuple[str, str]:
            return client.ask(f"ask {n}"), "".join(client.ask_stream(f"stream {n}"))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(work, range(40)))
        assert answers == [(f"ask {n}", f"stream {n}") for n in range(40)]
        assert provider_of(client).n_open_streams == 0

    def test_several_streams_of_one_thread_are_read_by_turns(self, client: LLMClient) -> None:
        pairs = zip(client.ask_stream("aaaabbbb"), client.ask_stream("ccccdddd"), strict=True)
        assert list(pairs) == [("aaaa", "cccc"), ("bbbb", "dddd")]

    def test_no_thread_starts_before_the_first_call(self) -> None:
        before = threading.active_count()
        client = LLMClient(ScriptedProvider(), close_provider=False)
        assert threading.active_count() == before
        client.close()
        assert threading.active_count() == before

    async def test_the_sync_client_works_inside_a_running_event_loop(self) -> None:
        with LLMClient(ScriptedProvider()) as client:
            assert client.ask("hi") == "hi"

    def test_calling_a_client_from_its_own_loop_is_an_error_not_a_deadlock(self) -> None:
        class Nosy(ScriptedProvider):
            client: LLMClient

            async def chat(self, request: ChatCompletionRequest) -> Any:
                return self.client.chat(request)

        provider = Nosy()
        with LLMClient(provider) as client:
            provider.client = client
            with pytest.raises(Other, match=r"inside its own event loop.*use AsyncLLMClient"):
                client.ask("hi")


class TestClosing:
    def test_close_may_be_called_twice_and_by_several_threads(self) -> None:
        provider = ScriptedProvider()
        client = LLMClient(provider)
        client.ask("hi")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: client.close(), range(8)))
        client.close()
        assert provider.closed

    def test_a_client_that_was_never_used_still_closes_its_provider(self) -> None:
        provider = ScriptedProvider()
        with LLMClient(provider):
            pass
        assert provider.closed

    def test_a_shared_provider_stays_open(self) -> None:
        provider = ScriptedProvider()
        with LLMClient(provider, close_provider=False) as client:
            client.ask("hi")
        assert not provider.closed

    def test_a_closed_client_refuses_in_one_sentence(self, client: LLMClient) -> None:
        client.close()
        with pytest.raises(Other, match="the client is closed; make a new one"):
            client.ask("hi")
        with pytest.raises(Other, match="the client is closed"):
            next(client.ask_stream("hi"))

    def test_an_error_while_closing_reaches_the_first_caller_only(self) -> None:
        class Stuck(ScriptedProvider):
            async def close(self) -> None:
                raise Other("it does not close")

        client = LLMClient(Stuck())
        with pytest.raises(Other, match="it does not close"):
            client.close()
        client.close()

    def test_closing_ends_running_requests_with_an_error(self) -> None:
        provider = Endless()
        client = LLMClient(provider)
        pieces = client.ask_stream("hi")
        next(pieces)
        client.close()
        with pytest.raises(Other, match="closed"):
            list(pieces)
        assert provider.n_open_streams == 0

    def test_a_dropped_client_ends_its_thread_and_leaves_the_provider_open(self) -> None:
        before = threading.active_count()
        provider = ScriptedProvider()
        client = LLMClient(provider)
        client.ask("hi")
        assert threading.active_count() == before + 1
        del client
        gc.collect()
        wait_until(lambda: threading.active_count() == before)
        assert not provider.closed

    def test_a_dropped_client_lives_as_long_as_its_stream(self) -> None:
        pieces = LLMClient(ScriptedProvider()).ask_stream("hello you")
        gc.collect()
        assert "".join(pieces) == "hello you"


class TestInterpreterExit:
    @pytest.mark.parametrize(
        "ending",
        [
            "client.ask('hi')",
            "pieces = client.ask_stream('hi'); next(pieces)",
            "threading.Thread(target=read, daemon=True).start(); begun.wait(20)",
            "client.close()",
            "pass",
        ],
    )
    def test_a_program_that_forgets_to_close_ends_at_once_and_closes_the_provider(
        self, ending: str
    ) -> None:
        code = f"""
import contextlib, threading
from mofa_gguf.host import LLMClient
from mofa_gguf.host.testing import ScriptedProvider

begun = threading.Event()

class Provider(ScriptedProvider):
    async def chat_stream(self, request):
        begun.set()
        async for chunk in super().chat_stream(request):
            yield chunk

    async def close(self):
        print("provider closed")

client = LLMClient(Provider(delay_s=0.04))

def read():
    with contextlib.suppress(Exception):
        list(client.ask_stream("hi"))

{ending}
print("end of program")
"""
        started = time.monotonic()
        done = subprocess.run(
            # Not "-X dev": asyncio would tell of every callback that a busy machine makes slow.
            [sys.executable, "-W", "default", "-c", code],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "end of program" in done.stdout
        assert ("provider closed" in done.stdout) == (ending != "pass")
        assert time.monotonic() - started < 30  # most of it is imports, on a busy machine


def test_load_makes_a_client_from_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "mofa.toml"
    file.write_text('[providers.a]\nprovider = "echo"\n')
    registry = ProviderRegistry()
    registry.register("echo", lambda config: ScriptedProvider())
    with LLMClient.load(file, registry=registry) as client:
        assert client.ask("hi") == "hi"
        assert client.config is None
