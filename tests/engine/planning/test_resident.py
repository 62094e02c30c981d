"""What of a mapped file stays in the host's memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mofa_gguf.engine.files.header import TensorInfo
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.planning.plan import Plan, Share
from mofa_gguf.engine.planning.resident import mapped_bytes

NAMES = (
    "token_embd.weight",
    "blk.0.attn_q.weight",
    "blk.0.ffn_up_exps.weight",
    "blk.1.attn_q.weight",
    "blk.1.ffn_up_exps.weight",
    "output.weight",
)
SIZE = 400
TENSORS = [
    TensorInfo(name, (SIZE // 4,), TYPES_BY_NAME["F32"], number * SIZE)
    for number, name in enumerate(NAMES)
]
HOST = Share("CPU", 0, weights=10_000, cache=0, compute=0, other=0, available=2**20)
PLAN = Plan("model", 64, 64, "f16", "f16", 0, 3, HOST)


def beyond(
    plan: Plan, tensors: list[TensorInfo] = TENSORS, held: frozenset[str] = frozenset()
) -> int:
    """Bytes beside those of the plan itself: what lies between tensors that stay."""
    return mapped_bytes(plan, tensors, n_layers=2, held=held) - plan.host.n_bytes


@pytest.mark.parametrize(
    ("n_gpu_layers", "cpu_experts", "n_between"),
    [
        (0, (), 0),  # all stays: nothing between
        (3, (), 0),  # only the embeddings stay
        (2, (), 0),  # embeddings and the first layer, side by side
        (3, (0,), 1),  # embeddings and the first layer's experts
        (3, (1,), 3),
        (3, (0, 1), 2),
    ],
)
def test_what_lies_between_tensors_that_stay_is_mapped_with_them(
    n_gpu_layers: int, cpu_experts: tuple[int, ...], n_between: int
) -> None:
    plan = replace(PLAN, n_gpu_layers=n_gpu_layers, cpu_experts=cpu_experts)
    assert beyond(plan) == n_between * SIZE


def test_tensors_that_are_copied_out_of_the_file_are_not_mapped() -> None:
    assert beyond(PLAN, held=frozenset(NAMES[1:])) == 0
    assert beyond(PLAN, held=frozenset(NAMES[1:5])) == 4 * SIZE


def test_every_table_of_inputs_stays_with_the_cpu() -> None:
    table = TensorInfo("per_layer_token_embd.weight", (SIZE // 4,), TYPES_BY_NAME["F32"], 6 * SIZE)
    assert beyond(replace(PLAN, n_gpu_layers=3), [*TENSORS, table]) == 5 * SIZE
