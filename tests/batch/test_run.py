"""Every line of the input is answered once in the output."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from mofa_gguf.batch import (
    BatchOptions,
    BatchReport,
    BatchStopped,
    DuplicateIds,
    InputUnusable,
    OtherBatch,
    OutputInUse,
    OutputUnusable,
    run_batch,
)
from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ContextLengthExceeded,
    NetworkError,
    RateLimited,
)
from mofa_gguf.host.testing import ScriptedProvider
from tests.batch.conftest import by_id, content, read_lines, text_of, write_lines
from tests.support.uneven import Uneven

PROMPTS = [{"custom_id": f"q{n}", "prompt": f"question {n}"} for n in range(40)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "in.jsonl", PROMPTS)


def in_order(path: Path) -> list[int]:
    return [int(line["id"].split("_")[2]) for line in read_lines(path)]


def in_folder(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir())


def fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)


class Interrupting(ScriptedProvider):
    """Cancels the batch when it is asked for the n-th time."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.batch: asyncio.Task[BatchReport] | None = None

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        if len(self.requests) == self.n:
            assert self.batch is not None
            self.batch.cancel()
        return await super().chat(request)


async def run_interrupted(source: Path, output: Path, *, after: int) -> None:
    provider = Interrupting(after)
    provider.batch = asyncio.ensure_future(
        run_batch(provider, source, output, BatchOptions(parallel=4))
    )
    with pytest.raises(asyncio.CancelledError):
        await provider.batch
    assert provider.n_open_streams == 0


async def test_every_line_is_answered_in_openais_form(source: Path, output: Path) -> None:
    report = await run_batch(ScriptedProvider(), source, output)
    answers = by_id(output)
    assert {name: text_of(line) for name, line in answers.items()} == {
        line["custom_id"]: line["prompt"] for line in PROMPTS
    }
    assert len({line["id"] for line in answers.values()}) == 40
    for line in answers.values():
        assert list(line) == ["id", "custom_id", "response", "error"]
        assert line["response"]["status_code"] == 200
        assert ChatCompletionResponse.from_dict(line["response"]["body"]).usage is not None
        assert line["error"] is None
    assert (report.n_lines, report.n_done, report.n_failed, report.n_done_before) == (40, 40, 0, 0)
    assert (report.prompt_tokens, report.completion_tokens) == (80, 80)


async def test_as_many_requests_as_wanted_are_in_flight(source: Path, output: Path) -> None:
    provider = Uneven()
    await run_batch(provider, source, output, BatchOptions(parallel=7))
    assert provider.most_at_once == 7


async def test_lines_come_as_they_are_done_or_in_the_end_in_order(
    source: Path, output: Path
) -> None:
    await run_batch(Uneven(), source, output)
    assert in_order(output) != sorted(in_order(output))
    before = sorted(content(output).splitlines())
    await run_batch(ScriptedProvider([]), source, output, BatchOptions(ordered=True))
    assert in_order(output) == list(range(1, 41))
    assert sorted(content(output).splitlines()) == before
    assert in_folder(output) == ["in.jsonl", "out.jsonl"]


async def test_chat_and_embedding_lines_go_together(tmp_path: Path, output: Path) -> None:
    url = "/v1/embeddings"
    lines = [{"custom_id": "v", "method": "POST", "url": url, "body": {"input": ["a", "b"]}}]
    source = write_lines(tmp_path / "in.jsonl", [*lines, {"prompt": "hi"}, {"input": "c"}])
    await run_batch(ScriptedProvider(), source, output)
    answers = by_id(output)
    assert [len(answers[name]["response"]["body"]["data"]) for name in ("v", "line-3")] == [2, 1]
    assert text_of(answers["line-2"]) == "hi"


async def test_a_line_that_fails_keeps_its_error_and_the_rest_goes_on(
    tmp_path: Path, output: Path
) -> None:
    source = write_lines(tmp_path / "in.jsonl", ["{nonsense", *PROMPTS[:3], "", '"text"'])
    replies = ["one", ContextLengthExceeded("too long", n_tokens=9, n_ctx=8), "three"]
    report = await run_batch(ScriptedProvider(replies), source, output, BatchOptions(parallel=1))
    lines = {int(line["id"].split("_")[2]): line for line in read_lines(output)}
    assert sorted(lines) == [1, 2, 3, 4, 6]
    assert [lines[n]["error"] and lines[n]["error"]["code"] for n in sorted(lines)] == [
        "invalid_json",
        None,
        "context_length_exceeded",
        None,
        "invalid_json",
    ]
    assert lines[3]["error"]["message"] == "too long"
    assert (lines[3]["custom_id"], lines[3]["response"]) == ("q1", None)
    assert lines[1]["custom_id"] is None
    assert (report.n_lines, report.n_done, report.n_failed) == (5, 5, 3)


async def test_an_error_outside_the_contract_fails_its_line_only(
    tmp_path: Path, output: Path
) -> None:
    class Broken(ScriptedProvider):
        async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
            if "1" in (request.messages[0].text_content() or ""):
                raise ZeroDivisionError("oops")
            return await super().chat(request)

    source = write_lines(tmp_path / "in.jsonl", PROMPTS[:3])
    assert (await run_batch(Broken(), source, output)).n_failed == 1
    assert by_id(output)["q1"]["error"] == {
        "code": "unexpected_error",
        "message": "ZeroDivisionError: oops",
    }


async def test_text_that_utf8_cannot_carry_is_written_all_the_same(
    tmp_path: Path, output: Path
) -> None:
    source = write_lines(tmp_path / "in.jsonl", ['{"prompt": "\\ud800 und Größe"}'])
    await run_batch(ScriptedProvider(), source, output)
    assert text_of(by_id(output)["line-1"]) == "\ud800 und Größe"


async def test_an_interrupted_batch_goes_on_where_it_stopped(source: Path, output: Path) -> None:
    await run_interrupted(source, output, after=20)
    done = content(output)
    n_before = len(done.splitlines())
    assert 8 <= n_before <= 20
    provider = ScriptedProvider()
    report = await run_batch(provider, source, output)
    assert content(output).startswith(done)
    assert len(by_id(output)) == 40
    assert len(provider.requests) == 40 - n_before
    assert (report.n_done_before, report.n_done) == (n_before, 40)


async def test_a_finished_batch_asks_nothing_any_more(source: Path, output: Path) -> None:
    await run_batch(ScriptedProvider(), source, output)
    before = content(output)
    assert (await run_batch(ScriptedProvider([]), source, output)).n_done_before == 40
    assert content(output) == before


async def test_lines_may_be_added_to_the_input(tmp_path: Path, output: Path) -> None:
    await run_batch(ScriptedProvider(), write_lines(tmp_path / "in.jsonl", PROMPTS[:10]), output)
    provider = ScriptedProvider()
    await run_batch(provider, write_lines(tmp_path / "in.jsonl", PROMPTS), output)
    assert (len(provider.requests), len(by_id(output))) == (30, 40)


@pytest.mark.parametrize(
    "other", [PROMPTS[:10], [{"prompt": "x"}, *PROMPTS], list(reversed(PROMPTS))]
)
async def test_another_input_is_refused(
    source: Path, output: Path, tmp_path: Path, other: list[object]
) -> None:
    await run_batch(ScriptedProvider(), source, output)
    before = content(output)
    provider = ScriptedProvider()
    with pytest.raises(OtherBatch, match="answers another input"):
        await run_batch(provider, write_lines(tmp_path / "other.jsonl", other), output)
    assert (content(output), provider.requests) == (before, [])


async def test_other_options_are_refused_unless_failed_lines_are_to_be_tried_so(
    source: Path, output: Path
) -> None:
    await run_interrupted(source, output, after=20)
    with pytest.raises(OtherBatch, match="other options"):
        await run_batch(ScriptedProvider(), source, output, BatchOptions(max_tokens=3))
    with pytest.raises(OtherBatch, match="another model"):
        await run_batch(ScriptedProvider(model="other"), source, output)
    again = BatchOptions(max_tokens=3, retry_failed=True)
    assert (await run_batch(ScriptedProvider(), source, output, again)).n_done == 40


async def test_failed_lines_are_computed_again_when_asked_for(source: Path, output: Path) -> None:
    replies = [f"a{n}" if n % 3 else NetworkError("gone") for n in range(40)]
    assert (await run_batch(ScriptedProvider(replies), source, output)).n_failed == 14
    assert (await run_batch(ScriptedProvider([]), source, output)).n_failed == 14
    good = [line for line in read_lines(output) if line["error"] is None]
    again = ScriptedProvider()
    options = BatchOptions(retry_failed=True, ordered=True)
    report = await run_batch(again, source, output, options)
    assert (len(again.requests), report.n_done_before, report.n_failed) == (14, 26, 0)
    assert len(by_id(output)) == 40
    assert in_order(output) == list(range(1, 41))
    assert all(line in read_lines(output) for line in good)


@pytest.mark.parametrize(
    "precious", [b"precious\n", b"precious", b'{"id": "x"}\n', b"\0\0\0", b"\n"]
)
async def test_a_file_of_something_else_is_never_touched(
    source: Path, output: Path, precious: bytes
) -> None:
    fill(output, precious)
    for options in (BatchOptions(), BatchOptions(retry_failed=True, ordered=True)):
        with pytest.raises(OutputUnusable, match="its line 1 is no output of a batch"):
            await run_batch(ScriptedProvider(), source, output, options)
    assert content(output) == precious


async def test_two_lines_of_one_name_are_refused_before_anything_is_computed(
    tmp_path: Path, output: Path
) -> None:
    lines = [*PROMPTS, {"custom_id": "q7", "prompt": "again"}]
    provider = ScriptedProvider()
    with pytest.raises(
        DuplicateIds, match=r"lines 8 and 41 of .* the same custom_id 'q7'"
    ) as caught:
        await run_batch(provider, write_lines(tmp_path / "in.jsonl", lines), output)
    assert caught.value.lines == (8, 41)
    assert (provider.requests, in_folder(output)) == ([], ["in.jsonl"])


async def test_two_runs_never_write_one_output(source: Path, output: Path) -> None:
    seen = []

    class Rival(ScriptedProvider):
        async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
            if not seen:
                seen.append(request)
                with pytest.raises(OutputInUse, match="another run"):
                    await run_batch(ScriptedProvider(), source, output)
            return await super().chat(request)

    await run_batch(Rival(), source, output)
    assert len(by_id(output)) == 40


async def test_the_lock_outlives_the_rewriting_of_the_file(source: Path, output: Path) -> None:
    await run_batch(ScriptedProvider([NetworkError("gone")] * 40), source, output)

    class Rival(ScriptedProvider):
        async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
            with pytest.raises(OutputInUse):
                await run_batch(ScriptedProvider(), source, output)
            return await super().chat(request)

    await run_batch(Rival(), source, output, BatchOptions(retry_failed=True))
    assert len(by_id(output)) == 40


async def test_a_provider_that_is_down_stops_the_batch(source: Path, output: Path) -> None:
    down = ScriptedProvider([NetworkError("no route")] * 40)
    with pytest.raises(BatchStopped, match="network_error: no route") as caught:
        await run_batch(down, source, output, BatchOptions(parallel=2, stop_after=10))
    assert 10 <= caught.value.n_failures <= 11
    assert len(read_lines(output)) == caught.value.n_failures
    assert (await run_batch(ScriptedProvider(), source, output)).n_done == 40


async def test_too_many_requests_are_sent_again_later(source: Path, output: Path) -> None:
    replies = [RateLimited("full"), RateLimited("full", retry_after_s=0.001), *["ok"] * 39]
    replies += [RateLimited("still full")] * 3
    options = BatchOptions(parallel=1, rate_limit_waits_s=(0.001, 0.001))
    report = await run_batch(ScriptedProvider(replies), source, output, options)
    assert (report.n_done, report.n_failed) == (40, 1)
    assert by_id(output)["q39"]["error"]["code"] == "rate_limited"


async def test_an_input_that_changes_meanwhile_is_noticed(tmp_path: Path, output: Path) -> None:
    prompts = [{"prompt": f"{n} {'x' * 2000}"} for n in range(100)]  # more than a read ahead
    source = write_lines(tmp_path / "in.jsonl", prompts)

    class Editing(ScriptedProvider):
        async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
            write_lines(source, [*prompts[:80], {"prompt": "else"}, *prompts[81:]])
            return await super().chat(request)

    with pytest.raises(InputUnusable, match=r"line 81 of .* has changed"):
        await run_batch(Editing(chunk_chars=9999), source, output, BatchOptions(parallel=2))


async def test_what_cannot_be_read_or_written_is_said(source: Path, tmp_path: Path) -> None:
    provider = ScriptedProvider()
    with pytest.raises(InputUnusable, match="cannot be read"):
        await run_batch(provider, tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(OutputUnusable, match="is the input"):
        await run_batch(provider, source, source)
    with pytest.raises(OutputUnusable, match="cannot be written"):
        await run_batch(provider, source, tmp_path / "no" / "out.jsonl")
    with pytest.raises(OutputUnusable, match="cannot be written"):
        await run_batch(provider, source, tmp_path)
    with pytest.raises(OutputUnusable, match="is no file"):
        await run_batch(provider, source, "/dev/null")
    assert provider.requests == []


async def test_a_line_that_counts_as_done_is_on_the_disk(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: sizes.append(os.fstat(fd).st_size))
    told: list[tuple[int, int]] = []

    def note(report: BatchReport) -> None:
        told.append((report.n_done, content(output)[: sizes[-1]].count(b"\n") if sizes else 0))

    await run_batch(ScriptedProvider(), source, output, on_progress=note)
    assert told[-1] == (40, 40)
    assert all(n_done <= n_synced for n_done, n_synced in told)


async def test_a_full_disk_leaves_whole_lines(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mofa_gguf.batch import output as module

    write, written = module.os.write, []

    def fill_up(fd: int, data: bytes) -> int:
        written.append(len(data))
        if len(written) > 3:
            write(fd, bytes(data)[:20])
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr(module.os, "write", fill_up)
    with pytest.raises(OutputUnusable, match="No space left on device"):
        await run_batch(ScriptedProvider(), source, output, BatchOptions(parallel=4))
    monkeypatch.undo()
    assert 3 <= len(read_lines(output)) < 40
    await run_batch(ScriptedProvider(), source, output)
    assert len(by_id(output)) == 40


async def test_progress_is_told_from_the_start_to_the_end(source: Path, output: Path) -> None:
    told: list[BatchReport] = []
    await run_batch(ScriptedProvider(), source, output, on_progress=told.append)
    done = [report.n_done for report in told]
    assert (done[0], done[-1]) == (0, 40)
    assert done == sorted(done)
    assert json.loads(json.dumps(told[-1].to_dict()))["lines"] == 40


async def test_input_is_read_as_it_is_needed(source: Path, tmp_path: Path) -> None:
    from mofa_gguf.batch.survey import survey

    known = survey(write_lines(tmp_path / "long.jsonl", [{"prompt": "x" * 1000}] * 20_000))
    lines = known.lines()
    assert next(lines)[0] == 1
    # 8 bytes a line are kept, and none of the 20 MB.
    assert known.digests.itemsize * len(known.digests) == 160_000
