"""The agent: a drop-in for MoFA's ``openai_chat_agent``.

    input query        text, bare or in MoFA's envelope -> output llm_result, in the envelope
    input embed        texts                            -> output embedding, a vector a text
    input forget       anything                         ends the conversation of its session_id
    output llm_stream  the answer's pieces as they come (dora's streaming pattern: session_id,
                       segment_id, seq, fin)
    output status      loading, ready or error
    output error       what went wrong, as JSON; without this output, ``llm_result`` has it as text,
                       as the stock agent's does

Outputs that the dataflow does not declare are not sent. The metadata of a query goes on with its
results; its ``session_id`` says to which conversation it belongs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import uuid
from collections.abc import Callable, Collection, Coroutine
from contextlib import aclosing
from typing import Any

from mofa_gguf.contract import LLMError, NetworkError, SerializationError
from mofa_gguf.host import AsyncChatSession, AsyncLLMClient
from mofa_gguf_node import failures
from mofa_gguf_node.envelope import read_text, read_texts, write_result
from mofa_gguf_node.memory import SessionStore
from mofa_gguf_node.ports import Arrived, Outgoing, Send
from mofa_gguf_node.remote import RemoteProvider
from mofa_gguf_node.settings import AgentSettings
from mofa_gguf_node.status import StatusLine

log = logging.getLogger(__name__)

RESULT, STREAM, ERROR, EMBEDDING = "llm_result", "llm_stream", "error", "embedding"
RESPONSE = "response"
"""The input that a provider node's replies come in at."""
SESSION_ID = "session_id"

# What dora itself puts beside a message.
_DORAS_OWN = frozenset({"timestamp", "open_telemetry_context"})


class Agent:
    """An agent node's logic; owns the client.

    Args:
        client: what it asks.
        settings: its options.
        tools: functions the model may call.
        send: takes messages to send.
        outputs: the outputs that the dataflow declares for the node.
        inputs: its inputs, each with the node it comes from.
        is_end: ``dataflow_status`` of its results.
    """

    def __init__(
        self,
        client: AsyncLLMClient,
        settings: AgentSettings,
        *,
        send: Send,
        outputs: Collection[str],
        inputs: dict[str, str],
        tools: Collection[Callable[..., Any]] = (),
        is_end: bool | str = True,
    ) -> None:
        self._client = client
        self._settings = settings
        self._tools = list(tools)
        self._send = send
        self._outputs = frozenset(outputs)
        self._is_end = is_end
        self._status = StatusLine(send, self._outputs)
        self._sessions = SessionStore(self._new_session, settings.max_sessions)
        self._segments = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._provider_node = inputs.get(RESPONSE)
        self._open = set(inputs) - {RESPONSE}
        self._actions: dict[str, Callable[[Arrived], Coroutine[Any, Any, None]]] = {
            "query": self._answer,
            "embed": self._embed,
            "forget": self._forget,
        }

    async def start(self) -> None:
        """Have the model loaded; queries that come meanwhile wait for it."""
        remote = self._remote()
        if remote is not None:
            remote.on_new_node = self._look
        await asyncio.wait([self._look()])

    def arrived(self, message: Arrived) -> None:
        """Take in a message; a provider node's reply goes where it is waited for."""
        if message.port == RESPONSE:
            self._hear(message)
            return
        action = self._actions.get(message.port)
        if action is None:
            known = ", ".join([*self._actions, RESPONSE])
            log.warning(
                "a message at the input %s, which means nothing here; known are %s",
                message.port,
                known,
            )
            return
        task = asyncio.get_running_loop().create_task(self._act(action, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def closed(self, port: str) -> None:
        """Nothing more comes in here; without the provider node, requests fail at once."""
        self._open.discard(port)
        remote = self._remote()
        if port == RESPONSE and remote is not None:
            remote.closed()
            self._status.say("error", **failures.to_dict(NetworkError("the provider node is gone")))

    def restarted(self, node_id: str) -> None:
        """Answers that the provider node was at are lost; it is asked for its state anew."""
        remote = self._remote()
        if remote is not None and node_id == self._provider_node:
            remote.restarted()
            self._look()

    def is_idle(self) -> bool:
        """Whether every message was dealt with."""
        return not self._tasks

    def is_over(self) -> bool:
        """Whether all inputs but the provider node's are closed."""
        return not self._open

    async def stop(self) -> None:
        """Give up what is under way, and close the client."""
        tasks = [*self._tasks, *([] if self._looking is None else [self._looking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def _look(self) -> asyncio.Task[None]:
        """Ask the provider for its state and tell it, unless that goes on already."""
        if self._looking is None or self._looking.done():
            following = self._status.follow(self._client.provider)
            self._looking = asyncio.get_running_loop().create_task(following)
        return self._looking

    async def _act(
        self, action: Callable[[Arrived], Coroutine[Any, Any, None]], message: Arrived
    ) -> None:
        try:
            await action(message)
        except LLMError as error:
            self._fail(message, error)
        # A tool or provider that breaks its promise must not end the node, nor go unheard.
        except Exception as error:
            log.exception("a message at %s failed", message.port)
            self._fail(message, LLMError(f"{type(error).__name__}: {error}"))

    async def _answer(self, message: Arrived) -> None:
        query, about = read_text(message.values), self._about(message)
        session = self._sessions.get(about.get(SESSION_ID) or self._settings.session)
        if self._tools:
            rounds = self._settings.max_tool_rounds
            answer = await session.send(query, max_tool_rounds=rounds)
            self._stream(about, 0, answer, fin=False)
            n_pieces = 1
        else:
            answer, n_pieces = "", 0
            async with aclosing(session.send_stream(query)) as pieces:
                async for piece in pieces:
                    self._stream(about, n_pieces, piece, fin=False)
                    answer += piece
                    n_pieces += 1
        self._check(answer)
        self._stream(about, n_pieces, "", fin=True)
        self._put(RESULT, write_result(RESULT, answer, is_end=self._is_end), about)

    async def _embed(self, message: Arrived) -> None:
        vectors = await self._client.embed_batch(read_texts(message.values))
        if EMBEDDING in self._outputs:
            self._send(Outgoing(EMBEDDING, vectors, self._about(message)))

    async def _forget(self, message: Arrived) -> None:
        self._sessions.forget(message.metadata.get(SESSION_ID) or self._settings.session)

    def _hear(self, message: Arrived) -> None:
        remote = self._remote()
        try:
            if remote is None:
                raise SerializationError(
                    f"a message at the input {RESPONSE}, but this agent has its model in itself"
                )
            remote.deliver(message.values, message.metadata)
        except SerializationError as error:
            self._fail(message, error)

    def _fail(self, message: Arrived, error: LLMError) -> None:
        about = {**self._about(message), "error": type(error).__name__}
        told = {**failures.to_dict(error), "input": message.port}
        log.warning("a message at %s failed: %s", message.port, error)
        if message.port == "query":
            self._stream(about, 0, "", fin=True)
        if ERROR in self._outputs:
            self._put(ERROR, json.dumps(told, ensure_ascii=False), about)
        elif message.port == "query":
            text = write_result(RESULT, f"Error: {error}", is_end=self._is_end)
            self._put(RESULT, text, about)

    def _about(self, message: Arrived) -> dict[str, Any]:
        """A message's metadata as its results have it."""
        about = {key: value for key, value in message.metadata.items() if key not in _DORAS_OWN}
        about.setdefault("segment_id", next(self._segments))
        return about

    def _stream(self, about: dict[str, Any], seq: int, piece: str, *, fin: bool) -> None:
        self._put(STREAM, piece, {**about, "seq": seq, "fin": fin})

    def _put(self, port: str, text: str, about: dict[str, Any]) -> None:
        if port in self._outputs:
            self._send(Outgoing(port, text, about))

    def _check(self, answer: str) -> None:
        """An answer to a schema that was cut off is no answer."""
        if self._settings.response_format is None:
            return
        try:
            json.loads(answer)
        except ValueError as error:
            raise SerializationError(
                f"the answer is not JSON, though a schema was set ({error}); is max_tokens too "
                "small?",
                content=answer,
            ) from error

    def _new_session(self, name: str | None) -> AsyncChatSession:
        return self._client.session(
            session_id=name or str(uuid.uuid4()),
            system=self._settings.system,
            tools=self._tools,
            context_window_size=self._settings.memory_turns,
            **self._settings.request_options(),
        )

    def _remote(self) -> RemoteProvider | None:
        provider = self._client.provider
        return provider if isinstance(provider, RemoteProvider) else None
