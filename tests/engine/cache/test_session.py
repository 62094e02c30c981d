"""Saved conversations: what is saved is gone on with, what does not fit is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.engine.cache.session import Session, read_session, write_session
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import SessionError
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama
from tests.support.tiny_memories import mamba

OPTIONS = EngineOptions(n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
MARK = {"model": "abc", "n_bytes": 5}


def run(engine: Engine, tokens: list[int]) -> tuple[list[int], FinishEvent]:
    request = GenerationRequest(
        tokens, SamplingOptions(temperature=0), max_tokens=12, ignore_eos=True
    )
    *events, last = engine.submit(request)
    assert isinstance(last, FinishEvent)
    return [t for e in events if isinstance(e, TextEvent) for t in e.tokens], last


def test_a_restarted_engine_goes_on_without_prefill(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "agent.session"
    first = Engine.load(tiny_model, OPTIONS)
    told = list(b"a conversation that took a while to compute")
    answer, _ = run(first, told)
    turn = [*told, *answer, *b" and on"]
    assert first.save_session(turn, file).result(10) == len(told) + len(answer) - 1
    expected, _ = run(first, turn)
    first.close()

    second = Engine.load(tiny_model, OPTIONS)
    n_tokens = second.load_session(file).result(10)
    after, last = run(second, turn)
    assert last.n_cached_tokens == n_tokens
    assert after == expected
    # Loading once more changes nothing, and what is half there already is shared.
    used = second.stats().n_cells_used
    second.load_session(file).result(10)
    assert second.stats().n_cells_used == used
    assert second._worker is not None
    second._worker.scheduler.check()
    second.close()


def test_a_session_is_saved_beside_running_requests(tiny_model: Path, tmp_path: Path) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    told = list(b"some agent's words")
    run(engine, told)
    endless = engine.submit(GenerationRequest(list(b"other"), ignore_eos=True))
    assert engine.save_session(told, tmp_path / "s").result(10) == len(told)
    assert isinstance(list(endless)[-1], FinishEvent)
    engine.close()


def test_nothing_cached_is_nothing_to_save(tiny_model: Path, tmp_path: Path) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    with pytest.raises(SessionError, match="nothing of the conversation is cached"):
        engine.save_session([1, 2, 3], tmp_path / "s").result(10)
    assert not list(tmp_path.iterdir())
    engine.close()


@pytest.mark.parametrize("other", ["weights", "cache type"])
def test_a_session_of_another_model_or_layout_is_refused(
    tiny_model: Path, tmp_path: Path, other: str
) -> None:
    file = tmp_path / "s"
    engine = Engine.load(tiny_model, OPTIONS)
    run(engine, list(b"told"))
    engine.save_session(list(b"told"), file).result(10)
    engine.close()
    if other == "weights":
        path = write_tiny_llama(tmp_path / "m.gguf", TinyLlama(seed=1))
        stranger = Engine.load(path, OPTIONS)
    else:
        stranger = Engine.load(tiny_model, EngineOptions(n_threads=1, flash_attn="off"))
    with pytest.raises(SessionError, match=r"another (model|cache_type_k)"):
        stranger.load_session(file).result(10)
    assert run(stranger, list(b"told"))[0]
    stranger.close()


def test_a_folder_that_is_not_there_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    engine = Engine.load(tiny_model, OPTIONS)
    run(engine, list(b"told"))
    with pytest.raises(SessionError, match="cannot be written"):
        engine.save_session(list(b"told"), tmp_path / "none" / "s").result(10)
    with pytest.raises(SessionError, match="cannot be read"):
        engine.load_session(tmp_path / "none" / "s").result(10)
    engine.close()


def test_a_session_is_never_put_in_place_of_a_device() -> None:
    with pytest.raises(SessionError, match="no ordinary file"):
        write_session(Path(os.devnull), Session([1], b"state"), MARK)
    assert not Path(os.devnull).is_file()


def test_a_recurrent_model_has_no_cells_to_save(tmp_path: Path) -> None:
    engine = Engine.load(mamba(tmp_path / "m.gguf"), EngineOptions(n_threads=1))
    with pytest.raises(SessionError, match="keeps no cells"):
        engine.save_session([1], tmp_path / "s")
    engine.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("session") / "s"
    write_session(path, Session([1, 2, 3], b"some state"), MARK)
    assert read_session(path, MARK) == Session([1, 2, 3], b"some state")
    return path


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no session at all",
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:-1] + b"x",
        lambda content: content[:10],
        lambda content: content.replace(b'"version": 1', b'"version": 9'),
        lambda content: content.replace(b'"n_tokens": 3', b'"n_tokens": -'),
    ],
)
def test_a_damaged_session_is_refused(
    saved: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(SessionError):
        read_session(path, MARK)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=5))
def test_any_changed_bytes_give_the_session_or_an_error(
    saved: Path, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(saved.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path = saved.with_name("changed")
    path.write_bytes(content)
    try:
        assert read_session(path, MARK) == Session([1, 2, 3], b"some state")
    except SessionError:
        assert bytes(content) != saved.read_bytes()
