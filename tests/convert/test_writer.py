"""Weights are computed ahead of the writer: at once, in order, within bounds."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from mofa_gguf.convert import writer
from mofa_gguf.convert.plan import PlannedTensor
from mofa_gguf.convert.weights import Weights, computed
from mofa_gguf.convert.writer import Encoding
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME


def _slow(values: npt.NDArray[np.float32], read: list[int]) -> Weights:
    def rows(start: int, stop: int) -> npt.NDArray[np.float32]:
        read.append(start)
        return values[start:stop]

    return replace(computed(values), read=rows)


def test_encoding_begins_before_anything_is_written_and_keeps_the_order() -> None:
    read: list[int] = []
    arrays = [np.full((3, 4), i, np.float32) for i in range(50)]
    tensors = [
        PlannedTensor(str(i), _slow(a, read), TYPES_BY_NAME["F32"]) for i, a in enumerate(arrays)
    ]
    with Encoding(tensors, n_threads=2) as encoding:
        deadline = time.monotonic() + 10
        while len(read) < 50 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(read) == 50
        for tensor, array in zip(tensors, arrays, strict=True):
            assert b"".join(encoding.of(tensor)) == array.tobytes()


def test_encoding_stays_within_its_bound_ahead_of_the_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writer, "_LEAST_AHEAD", 0)
    monkeypatch.setattr(writer, "SLAB_ELEMENTS", 8)
    read: list[int] = []
    tensor = PlannedTensor("x", _slow(np.zeros((100, 4), np.float32), read), TYPES_BY_NAME["F32"])
    with Encoding([tensor], n_threads=1) as encoding:
        pieces = encoding.of(tensor)
        next(pieces)
        time.sleep(0.05)
        # Three slabs of two rows for a thread, and the one that was taken.
        assert len(read) <= 4
        assert sum(len(piece) for piece in pieces) == 98 * 16


def test_what_is_given_up_is_not_computed_to_its_end() -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def rows(start: int, stop: int) -> npt.NDArray[np.float32]:
        begun.append(start)
        go_on.wait(10)
        return np.zeros((stop - start, 4), np.float32)

    weights = replace(computed(np.zeros((1, 4), np.float32)), read=rows)
    tensors = [PlannedTensor(str(i), weights, TYPES_BY_NAME["F32"]) for i in range(100)]
    with Encoding(tensors, n_threads=1) as encoding:
        assert encoding is not None
        threading.Timer(0.02, go_on.set).start()
    assert 1 <= len(begun) < 100


@pytest.mark.parametrize("name", ["IQ2_XXS", "IQ4_XS", "Q2_K", "Q4_K", "Q8_0"])
def test_the_bytes_do_not_depend_on_how_a_tensor_is_cut(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(7)
    values = random.normal(size=(24, 256)).astype(np.float32)
    importance = random.uniform(0.5, 2, size=(1, 256)).astype(np.float32)
    tensor = PlannedTensor("x", computed(values), TYPES_BY_NAME[name], importance=importance)

    def encoded(slab_elements: int) -> tuple[int, bytes]:
        monkeypatch.setattr(writer, "SLAB_ELEMENTS", slab_elements)
        with Encoding([tensor], n_threads=1) as encoding:
            pieces = [bytes(piece) for piece in encoding.of(tensor)]
        return len(pieces), b"".join(pieces)

    n_whole, whole = encoded(2**20)
    n_cut, cut = encoded(256)
    assert (n_whole, n_cut) == (1, 24)
    assert cut == whole


def test_slow_kernels_get_less_at_a_time() -> None:
    weights = computed(np.zeros((512, 2048), np.float32))
    n_pieces = {}
    for name in ("IQ2_XXS", "Q4_K"):
        tensor = PlannedTensor("x", weights, TYPES_BY_NAME[name])
        n_pieces[name] = len([*writer._slabs([tensor])])
    assert n_pieces == {"IQ2_XXS": 16, "Q4_K": 1}
