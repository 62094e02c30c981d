"""A LoRA adapter's matrices under llama.cpp's names.

An adapter adds ``scale * B @ A`` to a matrix. Where the converter moves rows of the matrix (a
rotary order, a fused matrix taken apart), the rows of B move the same way; A stays. Which rows move
where is found by sending numbered rows through the family's own transform, so that no family has to
say it twice. llama.cpp: src/llama-adapter.cpp, and for where adapters count ``build_lora_mm`` in
src/llama-graph.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.adapter_file import COPY, Adapter, Pair
from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.families.base import Dimensions, Family, Model, NamedWeights, Rule
from mofa_gguf.convert.weights import (
    Weights,
    computed,
    from_file,
    mapped,
    rows_of_each,
    stacked,
    stored,
    to_float32,
    transposed,
)

_EMBEDDING = "token_embd.weight"
_OUTPUT = "output.weight"
# Matrices that llama.cpp multiplies with the adapters in mind.
_MULTIPLIED = re.compile(
    r"(blk\.\d+\.(attn_(q|k|v|qkv|output|q_a|q_b|kv_a_mqa|kv_b)"
    r"|ffn_(gate|up|down|gate_inp)(_exps|_shexp)?|ssm_(in|x|dt|out))|output)\.weight"
)


@dataclass(frozen=True)
class AdapterTensors:
    """What the GGUF adapter holds. llama.cpp multiplies ``B @ A`` by ``alpha`` over the rank."""

    alpha: float
    tensors: tuple[NamedWeights, ...]


def adapter_tensors(adapter: Adapter, family: Family, model: Model) -> AdapterTensors:
    """The matrices for ``model``, which ``family`` read of the base checkpoint.

    Raises BadTensor for a module that the base model does not have, or that llama.cpp would leave
    as it is.
    """
    _check_copies(adapter, family)
    placed = list(_placed(adapter, family, model))
    strengths = {pair.scale * pair.rank for _, pair, _ in placed}
    # One number holds for the file. Where modules differ, their B takes the difference.
    alpha = strengths.pop() if len(strengths) == 1 else adapter.config.alpha
    tensors: list[NamedWeights] = []
    for target, pair, b in placed:
        factor = pair.scale * pair.rank / alpha
        tensors += _named(target, pair, b if factor == 1.0 else _times(b, factor))
    return AdapterTensors(alpha, tuple(tensors))


def _placed(adapter: Adapter, family: Family, model: Model) -> Iterator[tuple[str, Pair, Weights]]:
    """Every target with A (in its pair) and B as they stand in the file."""
    dimensions = family.dimensions()
    pairs = {family.canonical(f"{pair.module}.weight"): pair for pair in adapter.pairs.values()}
    written = {tensor.name for tensor in model.tensors}
    used: set[str] = set()
    for rule, source, target in family.expanded(dimensions["layers"]):
        names = [source]
        if "{e}" in source:
            names = [source.format(e=expert) for expert in range(dimensions[rule.stack])]
        present = [name for name in names if name in pairs]
        if not present or not target.endswith(".weight"):
            continue
        used.update(present)
        group = [pairs[name] for name in present]
        if len(present) < len(names):
            problem = "has an adapter and other experts of its layer have none"
            raise _bad(adapter, group[0], problem)
        if target not in written or not (target == _EMBEDDING or _MULTIPLIED.fullmatch(target)):
            raise _bad(adapter, group[0], _no_place(target, present[0]))
        if target == _EMBEDDING and not _has_own_output(family, written):
            raise _bad(adapter, group[0], _no_place(_OUTPUT, present[0]))
        pair = _together(adapter, group) if "{e}" in source else group[0]
        yield target, pair, _moved(adapter, pair, rule, dimensions)
    for name in pairs.keys() - used:
        problem = f"is no module of a {model.source_architecture} as the base checkpoint has it"
        raise _bad(adapter, pairs[name], problem)


def _check_copies(adapter: Adapter, family: Family) -> None:
    """Copies of the base model's embeddings must be copies."""
    checkpoint = family.checkpoint
    for name in adapter.file.tensors:
        if not name.endswith(COPY):
            continue
        original = name.removeprefix("base_model.model.").replace(COPY, ".weight")
        copy = from_file(adapter.file, name)
        if original not in checkpoint.tensors or not _same(copy, stored(checkpoint, original)):
            problem = f"differs from the base checkpoint's {original!r:.60}; merge the adapter"
            raise BadTensor(adapter.file.path, name, problem)


def _same(one: Weights, other: Weights) -> bool:
    step = max(1, 2**20 // max(1, one.shape[-1]))
    return one.shape == other.shape and all(
        np.array_equal(
            to_float32(one.read(i, i + step), one.dtype),
            to_float32(other.read(i, i + step), other.dtype),
        )
        for i in range(0, one.n_rows, step)
    )


def _has_own_output(family: Family, written: Set[str]) -> bool:
    """Whether llama.cpp's output matrix is another than the embeddings, and so is PEFT's."""
    tied = family.config.boolean("tie_word_embeddings", default=False)
    return _OUTPUT in written and not tied


def _no_place(target: str, source: str) -> str:
    if target == _OUTPUT:
        return (
            "has an adapter, but the base model's output matrix is its token embeddings, and "
            "llama.cpp cannot change one without the other; merge the adapter"
        )
    return f"has an adapter, but llama.cpp counts none for {source!r:.100}; merge the adapter"


def _together(adapter: Adapter, group: list[Pair]) -> Pair:
    """A layer's experts as one."""
    first = group[0]
    for pair in group:
        if _likeness(pair) != _likeness(first):
            raise _bad(adapter, pair, f"differs in rank, type or alpha from {first.module!r:.100}")
    a, b = (stacked([getattr(pair, side) for pair in group]) for side in ("a", "b"))
    return replace(first, a=a, b=b)


def _likeness(pair: Pair) -> tuple[object, ...]:
    return pair.a.shape, pair.b.shape, pair.a.dtype, pair.b.dtype, pair.scale


def _moved(adapter: Adapter, pair: Pair, rule: Rule, dimensions: Dimensions) -> Weights:
    """B with its rows where the family puts those of the matrix."""
    if pair.is_embedding != (rule.target == _EMBEDDING):
        raise _bad(adapter, pair, "is trained as an embedding on one side only")
    n_first, n_second = (dimensions[size] for size in rule.shape[-2:])
    order = row_order(rule, dimensions) if rule.transform else np.arange(n_first)
    if order is None or (rule.transform and "{e}" in rule.source):
        raise _bad(adapter, pair, "changes its form in the conversion; merge the adapter")
    # Where transformers keeps a matrix the other way round, PEFT does not.
    is_turned = isinstance(order, str) or pair.is_embedding
    n_out, n_in = (n_second, n_first) if is_turned else (n_first, n_second)
    if (pair.b.shape[-2], pair.a.shape[-1]) != (n_out, n_in):
        raise _bad(
            adapter,
            pair,
            f"makes a matrix of {[pair.b.shape[-2], pair.a.shape[-1]]}, but the base model's is "
            f"{[n_out, n_in]}; is this the right base?",
        )
    if rule.transform is None or isinstance(order, str):
        return pair.b
    return rows_of_each(pair.b, order)


def row_order(
    rule: Rule, dimensions: Dimensions
) -> npt.NDArray[np.intp] | Literal["turned"] | None:
    """What a rule's transform does to a matrix: which source row each row is, or that it is turned.

    None where it does anything else.
    """
    assert rule.transform is not None
    if len(rule.shape) != 2:
        return None
    n_rows = dimensions[rule.shape[0]]
    # Two columns tell a matrix from a list of numbers; 32-bit floats count to 2**24.
    marks = np.stack([np.arange(n_rows), np.arange(n_rows) + n_rows], axis=1).astype(np.float32)
    if n_rows >= 2**23:
        return None
    try:
        moved = rule.transform(computed(marks), dimensions)
        rows = to_float32(moved.read(0, moved.n_rows), moved.dtype)
    except (ValueError, IndexError):
        return None
    if rows.shape == marks.T.shape and np.array_equal(rows, marks.T):
        return "turned"
    if (
        len(moved.shape) != 2
        or rows.shape[1:] != (2,)
        or not np.isin(rows[:, 0], marks[:, 0]).all()
    ):
        return None
    order = rows[:, 0].astype(np.intp)
    return order if np.array_equal(rows, marks[order]) else None


def _named(target: str, pair: Pair, b: Weights) -> Iterator[NamedWeights]:
    # llama.cpp looks rows of A up for embeddings: one a token.
    yield NamedWeights(f"{target}.lora_a", transposed(pair.a) if pair.is_embedding else pair.a)
    yield NamedWeights(f"{target}.lora_b", b)


def _times(weights: Weights, factor: float) -> Weights:
    return mapped(weights, lambda rows: rows * np.float32(factor))


def _bad(adapter: Adapter, pair: Pair, problem: str) -> BadTensor:
    return BadTensor(adapter.file.path, pair.module, problem)
