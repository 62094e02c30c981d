"""Counts in Prometheus' text format, version 0.0.4.

prometheus.io/docs/instrumenting/exposition_formats; names after its naming conventions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mofa_gguf.contract import LLMProvider
from mofa_gguf.host import FallbackChain
from mofa_gguf.server.providers import Reporter, each

if TYPE_CHECKING:
    from mofa_gguf.engine.running.stats import EngineStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "mofa_gguf_"

# Name, type, what it is, and where the engine's statistics have it.
_ENGINE: tuple[tuple[str, str, str, Callable[[EngineStats], Any]], ...] = (
    ("requests_running", "gauge", "Requests being computed.", lambda s: s.n_running),
    ("requests_waiting", "gauge", "Requests in the queue.", lambda s: s.n_waiting),
    ("requests_total", "counter", "Requests taken in.", lambda s: s.n_requests),
    (
        "prompt_tokens_computed_total",
        "counter",
        "Prompt tokens that were computed.",
        lambda s: s.n_prompt_tokens_computed,
    ),
    (
        "prompt_tokens_cached_total",
        "counter",
        "Prompt tokens that were found computed.",
        lambda s: s.n_prompt_tokens_cached,
    ),
    ("generated_tokens_total", "counter", "Tokens generated.", lambda s: s.n_generated_tokens),
    ("drafted_tokens_total", "counter", "Tokens guessed ahead.", lambda s: s.n_drafted_tokens),
    ("accepted_tokens_total", "counter", "Guesses that were right.", lambda s: s.n_accepted_tokens),
    ("steps_total", "counter", "Batches computed.", lambda s: s.n_steps),
    ("cache_cells", "gauge", "Cells of the KV cache.", lambda s: s.n_cells),
    ("cache_cells_used", "gauge", "Cells that hold something.", lambda s: s.n_cells_used),
    (
        "cache_cells_cached",
        "gauge",
        "Cells of finished requests, kept for later ones.",
        lambda s: s.n_cells_cached,
    ),
    (
        "prompt_tokens_per_second",
        "gauge",
        "Speed of the latest steps with prompts.",
        lambda s: s.throughput.prompt_tokens_per_s,
    ),
    (
        "generated_tokens_per_second",
        "gauge",
        "Speed of the latest steps with answers.",
        lambda s: s.throughput.generated_tokens_per_s,
    ),
)
_LATENCIES = {
    "queue_seconds": ("Waiting time of the latest requests.", "queue_s"),
    "first_token_seconds": ("Until the first token of the latest answers.", "first_token_s"),
    "token_gap_seconds": ("Between two tokens of the latest answers.", "token_gap_s"),
}


@dataclass
class HttpCounts:
    """What the server itself counts."""

    n_open: int = 0
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Answers by route and status."""


@dataclass
class _Page:
    """Samples, those of one metric together, as the format demands."""

    metrics: dict[str, tuple[str, str, list[str]]] = field(default_factory=dict)

    def add(self, name: str, kind: str, text: str, value: Any, labels: Mapping[str, str]) -> None:
        if value is None:
            return
        _, _, samples = self.metrics.setdefault(_PREFIX + name, (kind, text, []))
        shown = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        samples.append(
            f"{_PREFIX}{name}{{{shown}}} {value}" if shown else f"{_PREFIX}{name} {value}"
        )

    def lines(self) -> Iterator[str]:
        for name, (kind, text, samples) in self.metrics.items():
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} {kind}"
            yield from samples


def metrics_page(provider: LLMProvider, http: HttpCounts) -> str:
    """Everything that can be counted of a provider, and of the requests to this server."""
    page = _Page()
    page.add("http_requests_in_progress", "gauge", "Requests being answered.", http.n_open, {})
    for (route, status), n in sorted(http.answered.items()):
        labels = {"route": route, "status": str(status)}
        page.add("http_requests_total", "counter", "Requests answered.", n, labels)
    for member in each(provider):
        if isinstance(member, FallbackChain):
            _add_chain(page, member)
        elif isinstance(member, Reporter):
            _add_models(page, member)
    return "\n".join(page.lines()) + "\n"


def _add_models(page: _Page, provider: Reporter) -> None:
    status = provider.status()
    page.add("memory_used_bytes", "gauge", "What the models take.", status.used_bytes, {})
    page.add("memory_budget_bytes", "gauge", "What they may take.", status.budget_bytes, {})
    for model in status.models:
        labels = {"model": model.name}
        loaded = int(model.engine is not None)
        page.add("model_loaded", "gauge", "Whether the model is in memory.", loaded, labels)
        if model.engine is not None:
            _add_engine(page, model.engine, labels)


def _add_engine(page: _Page, stats: EngineStats, labels: Mapping[str, str]) -> None:
    for name, kind, text, value in _ENGINE:
        page.add(name, kind, text, value(stats), labels)
    for name, (text, attribute) in _LATENCIES.items():
        found = getattr(stats.latency, attribute)
        for quantile, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
            page.add(name, "gauge", text, value, {**labels, "quantile": str(quantile)})


def _add_chain(page: _Page, chain: FallbackChain) -> None:
    counts = chain.metrics()
    labels = {"chain": counts.chain_name}
    page.add("chain_requests_total", "counter", "Requests.", counts.requests_total, labels)
    page.add(
        "chain_fallbacks_total",
        "counter",
        "Times the next was asked.",
        counts.fallbacks_total,
        labels,
    )
    for place, each_one in enumerate(counts.providers):
        own = {**labels, "place": str(place), "provider": each_one.name}
        page.add("chain_successes_total", "counter", "Answers.", each_one.successes, own)
        page.add("chain_failures_total", "counter", "Failures.", each_one.fallback_failures, own)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
