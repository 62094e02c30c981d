"""What running a model takes beside its weights and cache: compute buffers, outputs, tables."""

from __future__ import annotations

from typing import NamedTuple

from mofa_gguf.engine.planning.facts import ModelFacts

_F32 = 4
_BASE_BYTES = 4 * 2**20
"""Graphs, threads and what the engine keeps of its own, measured (tools/measure_plan.py)."""


class Compute(NamedTuple):
    """Bytes of a compute buffer by context, between and beyond a few known points.

    llama.cpp's buffer is the largest of several sums that grow with the context, a convex curve:
    a straight line between two points of it is never below it.
    """

    points: tuple[tuple[int, int], ...]
    """Pairs of context and bytes, in order."""

    def at(self, n_ctx: int) -> int:
        """The bytes for a context."""
        points = self.points
        if len(points) == 1 or n_ctx <= points[0][0]:
            return points[0][1]
        after = next((i for i, (n, _) in enumerate(points) if n >= n_ctx), len(points) - 1)
        (n0, b0), (n1, b1) = points[max(0, after - 1)], points[max(1, after)]
        return int(b0 + (b1 - b0) * (n_ctx - n0) / (n1 - n0))

    def with_point(self, n_ctx: int, n_bytes: int) -> Compute:
        """The same with one more point, which replaces one at the same context."""
        points = {**dict(self.points), n_ctx: n_bytes}
        return Compute(tuple(sorted(points.items())))


class Costs(NamedTuple):
    """What every load of a model takes, wherever its layers lie."""

    compute: Compute
    """On the host, and on each device that has layers."""
    n_output_bytes: int
    """Logits, or vectors, of one output for each sequence."""
    n_other_bytes: int
    """Tokenizer tables, scratch memory of the kernels, threads."""
    n_tied_copy_bytes: int = 0
    """Embeddings that the host holds a second time, laid out anew for the output."""
    n_layout_bytes: int = 0
    """What weights take in the layout of the CPU's kernels beyond what they take in the file."""
    measured: bool = False
    """Whether llama.cpp itself told the compute buffers."""

    @property
    def n_fixed_bytes(self) -> int:
        """The host's part that does not depend on the context."""
        return self.n_output_bytes + self.n_other_bytes + self.n_layout_bytes


def scratch_bytes(facts: ModelFacts, *, n_batch: int) -> int:
    """What the CPU's kernels need beside the graph: a batch of activations in the weights' kind."""
    return 2 * n_batch * max(facts.n_ff, facts.n_embd)


def attention_bytes(facts: ModelFacts, *, n_cells: int, n_batch: int) -> int:
    """What the CPU's kernels need for plain attention, where there is no flash attention.

    The weights of all heads are made the values' kind before they are multiplied; measured
    (tools/measure_plan.py), that takes about a byte for each.
    """
    return n_cells * n_batch * facts.n_heads


def other_bytes(facts: ModelFacts, *, n_batch: int) -> int:
    """Everything of the host's memory that is neither weights, cache nor a buffer of llama.cpp."""
    return facts.n_tokenizer_bytes + scratch_bytes(facts, n_batch=n_batch) + _BASE_BYTES


def output_bytes(facts: ModelFacts, *, n_outputs: int, n_values: int = 0) -> int:
    """llama.cpp's buffer for the outputs of a step: logits, and so many values of a vector."""
    return n_outputs * (facts.n_vocab + n_values) * _F32


def estimated_costs(
    facts: ModelFacts,
    *,
    n_batch: int,
    n_outputs: int,
    n_sequences: int,
    flash_attention: bool = True,
) -> Costs:
    """Costs without a dry load: a sum of activations that is larger than llama.cpp's buffer."""
    wide = 4 * facts.n_ff + 10 * facts.n_embd
    attention = 5 if flash_attention else 5 + 2 * facts.n_heads
    logits = n_outputs * facts.n_vocab * _F32
    base = n_batch * wide * _F32 + logits
    slope = n_batch * attention * _F32
    return Costs(
        compute=Compute(((0, base), (1 << 20, base + (slope << 20)))),
        n_output_bytes=output_bytes(facts, n_outputs=n_sequences),
        n_other_bytes=other_bytes(facts, n_batch=n_batch),
        n_tied_copy_bytes=facts.n_tied_bytes,
    )
