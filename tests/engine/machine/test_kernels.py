"""What this build's kernels do, as far as it can be seen in what they compute."""

from __future__ import annotations

import numpy as np

from mofa_gguf.engine.machine import kernels
from mofa_gguf.engine.native import llama


def test_attention_over_two_cells_is_their_weighted_mean() -> None:
    values = np.linspace(1.0, 2.0, 128, dtype=np.float16)
    weight = np.exp(np.float32(np.float16(-0.3)))
    expected = values.astype(np.float32) * weight / (1 + weight)
    assert np.allclose(kernels._attend(values), expected, rtol=1e-3)


def test_half_precision_is_told_from_the_rounding_and_asks_for_longer_heads() -> None:
    steps = {64, 32} if "F16C = 1" in llama().llama_print_system_info().decode() else {0, 32}
    if kernels.multiplies_in_half_precision():
        assert kernels.values_at_once() == 128
    else:
        assert kernels.values_at_once() in steps
