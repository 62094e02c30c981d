"""A file of requests through the bundled model: batched, prefixes shared, gone on with."""

from __future__ import annotations

from pathlib import Path

from mofa_gguf import GGUFConfig, GGUFProvider
from mofa_gguf.batch import BatchOptions, run_batch
from tests.batch.conftest import by_id, content, text_of, write_lines

SYSTEM = {"role": "system", "content": "Your name is Echo. You are helpful. You answer briefly."}


def line(n: int) -> dict[str, object]:
    question = {"role": "user", "content": f"What is {n} + 2?"}
    body = {"messages": [SYSTEM, question], "temperature": 0, "max_tokens": 24}
    return {"custom_id": f"q{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}


async def test_lines_share_their_prefix_and_a_cut_output_is_gone_on_with(tmp_path: Path) -> None:
    lines = [line(n) for n in range(1, 13)]
    broken = {"custom_id": "long", "prompt": "word " * 2000}
    vector = {"custom_id": "v", "input": "a sentence"}
    source = write_lines(tmp_path / "in.jsonl", [*lines, broken, vector])
    output = tmp_path / "out.jsonl"
    config = GGUFConfig(
        model="demo", cache_dir=tmp_path / "cache", n_ctx=512, n_threads=1, max_parallel=4
    )
    async with GGUFProvider(config) as provider:
        report = await run_batch(provider, source, output, BatchOptions(parallel=6))
        answers = by_id(output)
        assert (report.n_done, report.n_failed) == (14, 1)
        assert report.cached_share > 0.2
        assert answers["long"]["error"]["code"] == "context_length_exceeded"
        assert answers["v"]["response"]["body"]["data"][0]["embedding"]
        assert "5" in text_of(answers["q3"])

        whole = content(output)
        cut(output, whole[: len(whole) // 2])
        again = await run_batch(provider, source, output, BatchOptions(parallel=6))
        assert 0 < again.n_done_before < again.n_done == 14
        assert by_id(output).keys() == answers.keys()
        assert content(output).startswith(whole[: whole[: len(whole) // 2].rfind(b"\n") + 1])


def cut(path: Path, data: bytes) -> None:
    path.write_bytes(data)
