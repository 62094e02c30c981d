"""What the context that embeds takes beside the one that generates, when it is first asked for.

llama.cpp computes the logits of every token that is embedded, too, and keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mofa_gguf.engine.errors import OutOfMemory
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.context_params import ContextShape
from mofa_gguf.engine.planning.costs import (
    attention_bytes,
    estimated_costs,
    output_bytes,
    scratch_bytes,
)
from mofa_gguf.engine.planning.facts import ModelFacts
from mofa_gguf.engine.planning.placement import Cache, layer_cache
from mofa_gguf.engine.planning.plan import HOST, Plan, Share, mib

if TYPE_CHECKING:
    from mofa_gguf.engine.planning.dry_load import Buffers


@dataclass(frozen=True)
class EmbeddingPlan:
    """The context that embeds ``n_tokens`` at once. Its weights are the model's."""

    model: str
    n_tokens: int
    shares: tuple[Share, ...]
    """Of the host and of each device, with what the model itself leaves of them."""
    options: EngineOptions
    """Those that the context is made with."""

    @property
    def n_bytes(self) -> int:
        """All of it."""
        return sum(share.n_bytes for share in self.shares)

    @property
    def bytes_of(self) -> dict[str, int]:
        """What it takes of the host and of each device."""
        return {share.device: share.n_bytes for share in self.shares}

    @property
    def unseen_bytes(self) -> dict[str, int]:
        """What the system will not see as taken before it is used; see ``ledger``."""
        return {HOST: sum(share.compute for share in self.shares if share.device == HOST)}

    @property
    def problem(self) -> str | None:
        """What it lacks, in words; None if it fits."""
        left = {share.device: share.available for share in self.shares}
        return self.lacking(left)

    def lacking(self, available: dict[str, int]) -> str | None:
        """What it lacks where so much is available, in words; None if it fits."""
        for share in self.shares:
            if share.n_bytes > available[share.device]:
                where = "memory" if share.device == HOST else f"memory of {share.device}"
                return (
                    f"embedding {self.n_tokens} tokens at once needs {mib(share.n_bytes)} of "
                    f"{where} beside the model and {mib(available[share.device])} can be taken"
                )
        return None

    def check(self, available: dict[str, int]) -> None:
        """Raises OutOfMemory where too little is available."""
        problem = self.lacking(available)
        if problem:
            raise OutOfMemory(
                f"{self.model} cannot embed now: {problem}; a smaller n_embedding_batch or n_ctx "
                "takes less",
                n_bytes=self.n_bytes,
                available_bytes=sum(available.values()),
            )


def embedding_plan(
    facts: ModelFacts,
    plan: Plan,
    shape: ContextShape,
    options: EngineOptions,
    measured: Buffers | None,
) -> EmbeddingPlan:
    """The context of ``shape`` for a model that is placed as planned.

    ``measured`` is llama.cpp's own account of it, ``options`` those that it is made with.
    """
    plain = options.flash_attn == "off"
    scratch = scratch_bytes(facts, n_batch=shape.n_ubatch)
    if plain:
        # All scores at once, as F16.
        scratch += 2 * attention_bytes(facts, n_cells=shape.n_ctx, n_batch=shape.n_ubatch)
    # A dry load tells only what the first batch begins with: one output a sequence.
    output = output_bytes(facts, n_outputs=shape.n_batch, n_values=facts.n_embd)
    if measured is not None:
        compute = measured.largest_compute
    else:
        costs = estimated_costs(
            facts,
            n_batch=shape.n_ubatch,
            n_outputs=shape.n_batch,
            n_sequences=shape.n_sequences,
            flash_attention=not plain,
        )
        compute = costs.compute.at(shape.n_ctx)
    cache = Cache(shape.n_ctx, plan.type_k, plan.type_v, shape.n_sequences)
    shares, at = [], 0
    for share, n_layers in _in_order(plan, len(facts.layers)):
        layers = range(at, min(at + n_layers, len(facts.layers)))
        kept = sum(layer_cache(facts, i, cache) for i in layers)
        other = output + scratch if share.device == HOST else 0
        left = max(0, share.available - share.n_bytes)
        shares.append(Share(share.device, share.n_layers, 0, kept, compute, other, left))
        at += n_layers
    return EmbeddingPlan(plan.model, shape.n_batch, tuple(shares), options)


def _in_order(plan: Plan, n_layers: int) -> Sequence[tuple[Share, int]]:
    """Who has how many of the repeating layers, from the first one on."""
    first = n_layers - max(0, plan.n_gpu_layers - 1)
    return [(plan.host, first), *((share, share.n_layers) for share in plan.devices)]
