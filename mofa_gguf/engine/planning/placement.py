"""Which layers go to which device: plain functions of sizes.

llama.cpp gives devices the *last* ``n_gpu_layers`` layers, the output being the last of all, each
device a run of them in the order of the devices. Within that, the questions are how many, and
where one device's run ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mofa_gguf.engine.options import CacheType
from mofa_gguf.engine.planning.costs import Costs
from mofa_gguf.engine.planning.facts import ModelFacts

_N_HALVINGS = 12
CELL_STEP = 256


class Budget(NamedTuple):
    """What one device has for a model."""

    name: str
    n_bytes: int
    """Free memory less what is kept back."""
    remote: bool = False
    """Behind a network: filled after the devices of this machine."""


class Cache(NamedTuple):
    """The KV cache to be placed."""

    n_ctx: int
    type_k: CacheType
    type_v: CacheType
    n_states: int

    @property
    def n_cells(self) -> int:
        """What the context is rounded up to."""
        return whole_cells(self.n_ctx)


def whole_cells(n_ctx: int) -> int:
    """Cells of a cache for so many tokens: whole steps, as llama.cpp rounds."""
    return -(-n_ctx // CELL_STEP) * CELL_STEP


class Offload(NamedTuple):
    """How much is offloaded: the last ``n_layers`` layers, the experts of the last few of them."""

    n_layers: int
    n_expert_layers: int


def offloads(facts: ModelFacts, *, devices: bool) -> Iterator[Offload]:
    """Every offload worth trying, the most valuable first.

    Everything; then, of a model with experts, all layers with fewer and fewer of their experts,
    since attention and shared parts work for every token and experts for a few; then fewer layers.
    """
    n_layers, n_total = len(facts.layers), facts.n_total
    if not devices:
        yield Offload(0, 0)
        return
    yield Offload(n_total, n_layers)
    if facts.has_experts:
        for n_experts in range(n_layers - 1, -1, -1):
            yield Offload(n_total, n_experts)
    for n in range(n_total - 1, -1, -1):
        yield Offload(n, 0 if facts.has_experts else max(0, n - 1))


def offloaded_sizes(facts: ModelFacts, offload: Offload, cache: Cache) -> list[int]:
    """Bytes of each offloaded layer with its cache, in the order of the layers."""
    n_layers = len(facts.layers)
    first = n_layers - max(0, offload.n_layers - 1)
    sizes = []
    for i in range(first, n_layers):
        layer = facts.layers[i]
        kept_back = layer.n_expert_bytes if i < n_layers - offload.n_expert_layers else 0
        own = layer.n_bytes - kept_back + layer.n_adapter_bytes
        sizes.append(own + layer_cache(facts, i, cache))
    output = facts.n_output_bytes + facts.n_output_adapter_bytes
    return [*sizes, output] if offload.n_layers else []


def host_adapters(facts: ModelFacts, offload: Offload) -> int:
    """Adapters of what stays on the host."""
    on_host = len(facts.layers) - max(0, offload.n_layers - 1)
    total = sum(layer.n_adapter_bytes for layer in facts.layers[:on_host])
    return total + (0 if offload.n_layers else facts.n_output_adapter_bytes)


def layer_cache(facts: ModelFacts, index: int, cache: Cache) -> int:
    """Cache and states of one layer."""
    return facts.layers[index].cache_bytes(
        cache.type_k, cache.type_v, n_ctx=cache.n_cells, n_states=cache.n_states
    )


def host_cache(facts: ModelFacts, offload: Offload, cache: Cache) -> int:
    """Cache of the layers that stay on the host."""
    on_host = len(facts.layers) - max(0, offload.n_layers - 1)
    return sum(layer_cache(facts, i, cache) for i in range(on_host))


def host_weights(facts: ModelFacts, offload: Offload, costs: Costs) -> int:
    """Weights that stay on the host, each counted once."""
    n_layers = len(facts.layers)
    on_host = n_layers - max(0, offload.n_layers - 1)
    total = facts.n_input_bytes + sum(layer.n_bytes for layer in facts.layers[:on_host])
    for i in range(on_host, n_layers - offload.n_expert_layers):
        total += facts.layers[i].n_expert_bytes
    if not offload.n_layers:
        total += facts.n_output_bytes - facts.n_tied_bytes + costs.n_tied_copy_bytes
    return total


def assign(sizes: Sequence[int], budgets: Sequence[Budget], overhead: int) -> list[int] | None:
    """How many of the layers each device takes, or None if they do not all fit.

    ``overhead`` is what a device with any layer needs beside them. Each device takes as many as it
    can before the next one gets some, which fits whenever anything fits.
    """
    counts = []
    at = 0
    for budget in budgets:
        room, n = budget.n_bytes - overhead, 0
        while at < len(sizes) and sizes[at] <= room:
            room -= sizes[at]
            at, n = at + 1, n + 1
        counts.append(n)
    return counts if at == len(sizes) else None


def balanced(sizes: Sequence[int], budgets: Sequence[Budget], overhead: int) -> list[int] | None:
    """Like :func:`assign`, with the devices of this machine filled to the same share."""
    counts = assign(sizes, budgets, overhead)
    if counts is None or sum(not budget.remote for budget in budgets) < 2:
        return counts
    low, high = 0.0, 1.0
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        less = assign(sizes, [_scaled(budget, middle) for budget in budgets], overhead)
        # Balance is not worth a way through the network.
        if less is None or _remote(less, budgets) > _remote(counts, budgets):
            low = middle
        else:
            high, counts = middle, less
    return counts


def split_by(shares: Sequence[float], n_layers: int, n_devices: int) -> list[int]:
    """How many of ``n_layers`` llama.cpp gives each device for a ``tensor_split``."""
    weights = [*shares, *[0.0] * n_devices][:n_devices]
    total = sum(weights)
    if total <= 0:
        weights, total = [1.0] * n_devices, float(n_devices)
    ends = [sum(weights[: i + 1]) / total for i in range(n_devices)]
    counts = [0] * n_devices
    for layer in range(n_layers):
        at = layer / n_layers
        device = next((i for i, end in enumerate(ends) if end > at), n_devices - 1)
        counts[device] += 1
    return counts


def fits(
    counts: Sequence[int], sizes: Sequence[int], budgets: Sequence[Budget], overhead: int
) -> bool:
    """Whether a given split of the layers fits."""
    at = 0
    for n, budget in zip(counts, budgets, strict=True):
        if n and sum(sizes[at : at + n]) + overhead > budget.n_bytes:
            return False
        at += n
    return True


def _scaled(budget: Budget, share: float) -> Budget:
    return budget if budget.remote else budget._replace(n_bytes=int(budget.n_bytes * share))


def _remote(counts: Sequence[int], budgets: Sequence[Budget]) -> int:
    return sum(n for n, budget in zip(counts, budgets, strict=True) if budget.remote)
