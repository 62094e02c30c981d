"""Spans, metrics and log events of requests, read back from OpenTelemetry and from logging."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    ContextLengthExceeded,
    EmbeddingRequest,
    GGUFProvider,
    ModelNotFound,
    ResponseFormat,
)
from mofa_gguf.engine.events import EVENTS, JsonFormatter, emit, event_fields
from mofa_gguf.provider import telemetry
from mofa_gguf.provider.telemetry import CAPTURE_VARIABLE

SECRET = "a secret question"


def ask(text: str = SECRET, **options: Any) -> ChatCompletionRequest:
    messages = [ChatMessage.system("a secret rule"), ChatMessage.user(text)]
    given = {"max_tokens": 5, "ignore_eos": True, "temperature": 0.0, **options}
    return ChatCompletionRequest(messages=messages, **given)


class Recorded:
    """What the SDK was given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def span(self) -> ReadableSpan:
        (only,) = self.spans()
        return only

    def attributes(self) -> Mapping[str, Any]:
        return dict(self.span().attributes or {})

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """The SDK in place of the process's own providers, for one test."""
    monkeypatch.delenv(CAPTURE_VARIABLE, raising=False)
    sdk = Recorded()
    monkeypatch.setattr(trace, "get_tracer", sdk.tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", sdk.meters.get_meter)
    telemetry._metrics.cache_clear()
    yield sdk
    telemetry._metrics.cache_clear()
    sdk.tracers.shutdown()
    sdk.meters.shutdown()


class TestSpans:
    async def test_a_chat_has_a_span_named_after_its_model(
        self, provider: GGUFProvider, recorded: Recorded
    ) -> None:
        response = await provider.chat(ask(top_k=3, seed=7, stop=["§"], session_id="s1"))
        span = recorded.span()
        assert (span.name, span.kind) == ("chat tiny-chat", SpanKind.INTERNAL)
        assert span.status.status_code is StatusCode.UNSET
        usage = response.usage
        assert usage is not None
        assert recorded.attributes() == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "gguf",
            "gen_ai.request.model": "tiny-chat",
            "gen_ai.request.max_tokens": 5,
            "gen_ai.request.temperature": 0.0,
            "gen_ai.request.top_k": 3,
            "gen_ai.request.seed": 7,
            "gen_ai.request.stop_sequences": ("§",),
            "gen_ai.conversation.id": "s1",
            "gen_ai.output.type": "text",
            "gen_ai.response.id": response.id,
            "gen_ai.response.model": "tiny-chat",
            "gen_ai.response.finish_reasons": ("length",),
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.usage.cache_read.input_tokens": 0,
        }

    async def test_a_stream_says_when_its_first_piece_came(
        self, provider: GGUFProvider, recorded: Recorded
    ) -> None:
        request = ask(n=2, response_format=ResponseFormat.json(), ignore_eos=False)
        async for _ in provider.chat_stream(request):
            pass
        attributes = recorded.attributes()
        assert attributes["gen_ai.request.stream"] is True
        assert attributes["gen_ai.request.choice.count"] == 2
        assert attributes["gen_ai.output.type"] == "json"
        assert len(attributes["gen_ai.response.finish_reasons"]) == 2
        assert [event.name for event in recorded.span().events] == ["gen_ai.first_token"]
        assert attributes["gen_ai.response.time_to_first_chunk"] > 0

    async def test_it_is_a_child_of_the_callers_span(
        self, provider: GGUFProvider, recorded: Recorded
    ) -> None:
        tracer = recorded.tracers.get_tracer("agent")
        with tracer.start_as_current_span("agent") as agent:
            await asyncio.gather(provider.chat(ask()), provider.chat(ask("another")))
            assert trace.get_current_span() is agent
        *chats, _ = recorded.spans()
        assert len(chats) == 2
        for chat in chats:
            assert chat.parent is not None
            assert chat.parent.span_id == agent.get_span_context().span_id

    async def test_an_error_is_named(self, provider: GGUFProvider, recorded: Recorded) -> None:
        with pytest.raises(ContextLengthExceeded):
            await provider.chat(ask("x" * 2000))
        span = recorded.span()
        assert span.status.status_code is StatusCode.ERROR
        assert recorded.attributes()["error.type"] == "ContextLengthExceeded"
        (point,) = recorded.points(telemetry.DURATION)
        assert point.attributes["error.type"] == "ContextLengthExceeded"

    async def test_a_closed_stream_is_no_error(
        self, provider: GGUFProvider, recorded: Recorded
    ) -> None:
        stream = provider.chat_stream(ask(max_tokens=300))
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.aclose()
        assert recorded.span().status.status_code is StatusCode.UNSET
        assert [event.name for event in recorded.span().events][-1] == "gen_ai.cancelled"
        assert "gen_ai.response.finish_reasons" not in recorded.attributes()

    async def test_vectors_have_a_span_too(
        self, provider: GGUFProvider, recorded: Recorded
    ) -> None:
        response = await provider.embedding(EmbeddingRequest(model="", input=["one", "two"]))
        assert recorded.span().name == "embeddings tiny-chat"
        attributes = recorded.attributes()
        assert attributes["gen_ai.embeddings.dimension.count"] == 64
        assert attributes["gen_ai.usage.input_tokens"] == response.usage.prompt_tokens
        assert attributes["gen_ai.request.encoding_formats"] == ("float",)


class TestContent:
    async def test_nothing_that_was_said_is_recorded(
        self, provider: GGUFProvider, recorded: Recorded
    ) -> None:
        answer = (await provider.chat(ask())).content()
        assert answer
        told = json.dumps(recorded.span().to_json(), ensure_ascii=False)
        assert "secret" not in told
        assert answer not in told

    async def test_it_is_recorded_where_the_conventions_variable_says_so(
        self, provider: GGUFProvider, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(CAPTURE_VARIABLE, "SPAN_ONLY")
        answer = (await provider.chat(ask())).content()
        attributes = recorded.attributes()
        asked = json.loads(attributes["gen_ai.input.messages"])
        assert asked == [{"role": "user", "parts": [{"type": "text", "content": SECRET}]}]
        rule = json.loads(attributes["gen_ai.system_instructions"])
        assert rule == [{"type": "text", "content": "a secret rule"}]
        (message,) = json.loads(attributes["gen_ai.output.messages"])
        assert message["parts"] == [{"type": "text", "content": answer}]
        assert (message["role"], message["finish_reason"]) == ("assistant", "length")


class TestMetrics:
    async def test_durations_tokens_and_latencies_are_counted(
        self, provider: GGUFProvider, recorded: Recorded
    ) -> None:
        await provider.chat(ask())
        async for _ in provider.chat_stream(ask("another")):
            pass
        await provider.embedding(EmbeddingRequest(model="", input="x"))
        n_of = {
            name: sum(point.count for point in recorded.points(name)) for name in telemetry._METRICS
        }
        assert n_of == {
            telemetry.DURATION: 3,
            telemetry.TOKEN_USAGE: 5,
            telemetry.FIRST_CHUNK: 1,
            telemetry.FIRST_TOKEN: 2,
            telemetry.PER_TOKEN: 2,
        }
        sums = {
            (point.attributes["gen_ai.operation.name"], point.attributes["gen_ai.token.type"]): (
                point.sum
            )
            for point in recorded.points(telemetry.TOKEN_USAGE)
        }
        assert sums["chat", "output"] == 10
        assert set(sums) == {("chat", "input"), ("chat", "output"), ("embeddings", "input")}
        point = recorded.points(telemetry.DURATION)[0]
        assert point.explicit_bounds[0] == 0.01


def test_without_the_package_nothing_of_it_is_imported(tiny_chat_model: Path) -> None:
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from mofa_gguf import GGUFConfig, GGUFProvider, LLMClient
with LLMClient(GGUFProvider(GGUFConfig(model={str(tiny_chat_model)!r}, n_threads=1))) as client:
    assert client.ask("Hello", max_tokens=3, ignore_eos=True)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestLogEvents:
    @pytest.fixture
    def events(self, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
        """Every event, as it is logged."""
        caplog.set_level(logging.DEBUG, logger="mofa_gguf")
        found: list[dict[str, Any]] = []

        def keep(record: logging.LogRecord) -> bool:
            facts = event_fields(record)
            if facts is not None:
                found.append(facts)
            return True

        caplog.handler.addFilter(keep)
        return found

    async def test_a_request_is_told_from_its_load_to_its_end(
        self, provider: GGUFProvider, events: list[dict[str, Any]]
    ) -> None:
        response = await provider.chat(ask())
        await provider.unload()
        assert [event["event"] for event in events] == [
            "model.loaded",
            "request.finished",
            "model.unloaded",
        ]
        finished = events[1]
        assert (finished["request"], finished["model"]) == (response.id, "tiny-chat")
        assert (finished["n_generated_tokens"], finished["finish_reasons"]) == (5, ["length"])
        assert finished["seconds"] >= finished["decode_s"] > 0
        assert SECRET not in json.dumps(events)

    async def test_refused_and_cancelled_requests_are_told_apart(
        self, provider: GGUFProvider, events: list[dict[str, Any]]
    ) -> None:
        with pytest.raises(ModelNotFound):
            await provider.chat(ask(model="no such"))
        stream = provider.chat_stream(ask(max_tokens=300))
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.aclose()
        told = [event for event in events if event["event"].startswith("request.")]
        assert [event["event"] for event in told] == ["request.refused", "request.cancelled"]
        assert (told[0]["error"], told[0]["model"]) == ("ModelNotFound", "no such")
        assert told[0]["request"] is None
        assert told[1]["request"]

    async def test_a_bug_is_told_as_a_request_that_failed(
        self,
        provider: GGUFProvider,
        events: list[dict[str, Any]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(*_: object) -> None:
            raise KeyError("a bug")

        monkeypatch.setattr("mofa_gguf.provider.gguf.parser_of", broken)
        with pytest.raises(KeyError):
            await provider.chat(ask())
        failed = events[-1]
        assert (failed["event"], failed["error"]) == ("request.failed", "KeyError")
        assert failed["reason"] == "'a bug'"

    async def test_cached_tokens_that_give_way_are_told_at_debug_level(
        self, provider: GGUFProvider, events: list[dict[str, Any]]
    ) -> None:
        for text in ("a" * 200, "b" * 200, "c" * 200):
            await provider.chat(ask(text))
        evicted = [event for event in events if event["event"] == "cache.evicted"]
        assert evicted
        assert all(event["n_cells"] > 0 for event in evicted)

    def test_a_line_of_json_has_the_facts(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        logger = logging.getLogger("mofa_gguf.test")
        emit(logger, "model.unloaded", model="a b", n_bytes=5)
        logger.info("no event, %d", 5)
        first, second = (JsonFormatter().format(record) for record in caplog.records)
        line = json.loads(first)
        assert (line["event"], line["model"], line["n_bytes"]) == ("model.unloaded", "a b", 5)
        assert (line["level"], line["logger"]) == ("info", "mofa_gguf.test")
        assert json.loads(second)["message"] == "no event, 5"
        assert caplog.messages[0] == 'model.unloaded model="a b" n_bytes=5'

    def test_the_page_on_events_names_each_with_its_facts(self) -> None:
        page = Path(__file__).resolve().parents[2] / "docs" / "observability.md"
        rows = [
            [cell.strip() for cell in line.strip("|\n").split("|")]
            for line in page.read_text(encoding="utf-8").splitlines()
            if line.startswith("| `") and "." in line.split("`")[1]
        ]
        told = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in EVENTS}
        assert set(told) == set(EVENTS)
        for name, kind in EVENTS.items():
            level, meaning, fields = told[name]
            assert level == logging.getLevelName(kind.level).lower()
            assert meaning == kind.meaning
            assert fields == ", ".join(f"`{field}`" for field in kind.fields)
