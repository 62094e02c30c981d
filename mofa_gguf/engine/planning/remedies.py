"""What would fit where a load does not: layers, cache types, contexts, quantizations."""

from __future__ import annotations

from mofa_gguf.engine.options import AUTO, CacheType
from mofa_gguf.engine.planning.facts import ModelFacts
from mofa_gguf.engine.planning.search import CTX_STEP, Problem, search

# Bits a weight that the mixtures come to in models of common shape, the better first.
QUANTIZATIONS = (
    ("Q8_0", 8.5),
    ("Q6_K", 6.6),
    ("Q5_K_M", 5.7),
    ("Q4_K_M", 4.9),
    ("Q3_K_M", 3.9),
    ("Q2_K", 3.2),
)
_CACHE_TYPES: tuple[CacheType, ...] = ("q8_0", "q4_0")


def remedies(problem: Problem) -> tuple[str, ...]:
    """Changes each of which would make the load fit, the mildest first."""
    found = [_layers(problem), _cache_type(problem), _context(problem), _quantization(problem)]
    return tuple(each for each in found if each)


def _layers(problem: Problem) -> str | None:
    wishes = problem.wishes
    if wishes.n_gpu_layers in (AUTO, 0):
        return None
    best = search(problem._replace(wishes=wishes._replace(n_gpu_layers=AUTO, tensor_split=())))
    return None if best is None else f"n_gpu_layers={best.offload.n_layers}"


def _cache_type(problem: Problem) -> str | None:
    wishes = problem.wishes
    for name in _CACHE_TYPES:
        if name in (wishes.type_k, wishes.type_v):
            continue
        if search(problem._replace(wishes=wishes._replace(type_k=name, type_v=name))):
            return f'cache_type_k = cache_type_v = "{name}"'
    return None


def _context(problem: Problem) -> str | None:
    """The largest smaller context that fits, in whole steps."""
    wished = problem.wishes.n_ctx
    if wished == AUTO:
        return None  # the smallest one was tried
    low, high = 0, -(-wished // CTX_STEP)
    while high - low > 1:
        middle = (low + high) // 2
        wishes = problem.wishes._replace(n_ctx=middle * CTX_STEP)
        if search(problem._replace(wishes=wishes)):
            low = middle
        else:
            high = middle
    return f"n_ctx={low * CTX_STEP}" if low else None


def _quantization(problem: Problem) -> str | None:
    """The largest quantization that fits, if it is smaller than the file's own."""
    facts = problem.facts
    bits = 8 * facts.n_weight_bytes / max(1, facts.n_parameters)
    for name, wanted in QUANTIZATIONS:
        smaller = _at(facts, wanted / bits)
        if wanted < bits and search(problem._replace(facts=smaller)):
            return f"a quantization to {name}"
    return None


def _at(facts: ModelFacts, ratio: float) -> ModelFacts:
    """The model with weights of ``ratio`` times their size."""
    layers = tuple(
        layer._replace(
            n_bytes=int(layer.n_bytes * ratio),
            n_expert_bytes=int(layer.n_expert_bytes * ratio),
        )
        for layer in facts.layers
    )
    return facts._replace(
        layers=layers,
        n_input_bytes=int(facts.n_input_bytes * ratio),
        n_output_bytes=int(facts.n_output_bytes * ratio),
        n_tied_bytes=int(facts.n_tied_bytes * ratio),
    )
