"""How much of the host's memory a planned model has once it is loaded, its mapped file included."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mofa_gguf.engine.files.header import TensorInfo
from mofa_gguf.engine.planning.facts import block_of, is_input, mapped_span
from mofa_gguf.engine.planning.plan import Plan


def mapped_bytes(
    plan: Plan, tensors: Iterable[TensorInfo], *, n_layers: int, held: Collection[str]
) -> int:
    """The host's bytes of a plan whose file is mapped and not read.

    llama.cpp keeps the file mapped from the first tensor that stays with the CPU to the last, so
    what lies between counts, too. ``n_layers``: the model's, without the output; ``held``: the
    names of tensors that are copied out of the file, in another layout.
    """
    mapped = [
        each for each in tensors if each.name not in held and _stays(each.name, n_layers, plan)
    ]
    return plan.host.n_bytes + mapped_span(mapped) - sum(each.n_bytes for each in mapped)


def _stays(name: str, n_layers: int, plan: Plan) -> bool:
    """Whether a tensor stays with the CPU."""
    if not plan.n_gpu_layers or is_input(name):
        return True
    layer = block_of(name)
    if layer is None:
        return False
    first_offloaded = n_layers - max(0, plan.n_gpu_layers - 1)
    return layer < first_offloaded or (layer in plan.cpu_experts and "_exps" in name)
