"""The short form of ``python -m tools.bench.soak``: nothing is lost and nothing sticks."""

from __future__ import annotations

from pathlib import Path

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions
from tools.bench.soak import soak


def test_many_clients_of_all_kinds_leave_the_engine_as_it_was(tiny_model: Path) -> None:
    options = EngineOptions(n_threads=1, max_parallel=6, max_queue=4, n_ctx=512)
    engine = Engine.load(tiny_model, options)
    report = soak(engine, n_clients=12, seconds=1.5)
    assert report.n_finished > 0
    assert (report.surprises, report.n_stuck, report.n_cells_lost) == ([], 0, 0)
    stats = engine.stats()
    assert (stats.n_running, stats.n_waiting) == (0, 0)
    assert engine._worker is not None
    engine._worker.scheduler.check()
    engine.close()
