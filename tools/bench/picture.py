"""The benchmark's picture: tokens a second and first-token time over the number of streams."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from tools.bench.remote import Result


def draw_streams(results: Sequence[Result], path: Path) -> None:
    """Draw workloads "e N streams" into an SVG file."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [r for r in results if r.workload.startswith("e ")]
    figure, (speed, memory) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for road in dict.fromkeys(r.road for r in rows):
        points: dict[int, list[Result]] = {}
        for row in rows:
            if row.road == road:
                points.setdefault(int(row.workload.split()[1]), []).append(row)
        counts = sorted(points)
        rates = [statistics.median(r.n_answer / r.wall_s for r in points[n]) for n in counts]
        sizes = [statistics.median(r.resident_mb for r in points[n]) for n in counts]
        speed.plot(counts, rates, marker="o", label=road)
        memory.plot(counts, sizes, marker="o", label=road)
    for axes, title in ((speed, "answered tokens a second"), (memory, "resident memory, MB")):
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(n) for n in counts])
        axes.set_xlabel("streams at once")
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    speed.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
