"""An adapter's folder, read without its base model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mofa_gguf.convert.adapter_file import MAX_RANK, Adapter, open_adapter
from mofa_gguf.convert.errors import BadTensor
from tests.convert.makers import Tensors, safetensors_bytes

_MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def matrix(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.float32)


def opened(folder: Path, tensors: Tensors, **config: object) -> Adapter:
    values = {"peft_type": "LORA", "lora_alpha": 6, **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    return open_adapter(folder)


def test_the_two_matrices_of_a_module_are_one_pair(tmp_path: Path) -> None:
    adapter = opened(
        tmp_path,
        {f"{_MODULE}.lora_A.weight": matrix(3, 8), f"{_MODULE}.lora_B.weight": matrix(4, 3)},
    )
    ((name, pair),) = adapter.pairs.items()
    assert name == pair.module == "model.layers.0.self_attn.q_proj"
    assert (pair.a.shape, pair.b.shape, pair.rank) == ((3, 8), (4, 3), 3)
    assert (pair.scale, pair.is_embedding) == (2.0, False)


def test_matrices_of_embeddings_are_told_by_their_names(tmp_path: Path) -> None:
    module = "base_model.model.model.embed_tokens"
    adapter = opened(
        tmp_path,
        {
            f"{module}.lora_embedding_A": matrix(2, 9),
            f"{module}.lora_embedding_B": matrix(8, 2),
            f"{module}.base_layer.weight": matrix(9, 8),  # what it was trained on: no matrix of it
        },
    )
    assert [pair.is_embedding for pair in adapter.pairs.values()] == [True]


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({}, "holds no tensor"),
        ({f"{_MODULE}.lora_A.weight": matrix(3, 8)}, "lora_B.*is missing; its other half is there"),
        ({f"{_MODULE}.lora_A.weight": matrix(3)}, "not a matrix's"),
        (
            {f"{_MODULE}.lora_A.weight": matrix(3, 8), f"{_MODULE}.lora_B.weight": matrix(4, 2)},
            "do not fit together",
        ),
        (
            {
                f"{_MODULE}.lora_A.weight": matrix(MAX_RANK + 1, 1),
                f"{_MODULE}.lora_B.weight": matrix(1, MAX_RANK + 1),
            },
            "do not fit together",
        ),
        ({f"{_MODULE}.lora_magnitude_vector": matrix(4)}, "belongs to DoRA"),
        ({f"{_MODULE}.lora_embedding_A.weight": matrix(2, 9)}, "no matrix of a LoRA adapter"),
        ({"base_model.model.lm_head.weight": matrix(9, 8)}, "is a whole tensor"),
    ],
)
def test_what_is_no_pair_of_matrices_is_named(tmp_path: Path, tensors: Tensors, says: str) -> None:
    with pytest.raises(BadTensor, match=says):
        opened(tmp_path, tensors)
