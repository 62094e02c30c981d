"""A Gemma 3n of 25 layers from the small fixture, for what only llama.cpp's own numbers show.

llama.cpp has built in that the first 10 layers are sparse and that those from the 21st on take
the keys and values of earlier ones. tools/make_deep_reference.py computes the same checkpoint
with transformers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

N_LAYERS, N_OWN, N_SPARSE = 25, 20, 10
_LAYER_INPUT = 256


def deeper(config: dict[str, Any]) -> None:
    """Change the configuration; the rest of it stays."""
    types = ["full_attention" if i % 5 == 4 else "sliding_attention" for i in range(N_LAYERS)]
    config.update(
        num_hidden_layers=N_LAYERS,
        num_kv_shared_layers=N_LAYERS - N_OWN,
        layer_types=types,
        activation_sparsity_pattern=[0.95] * N_SPARSE + [0.0] * (N_LAYERS - N_SPARSE),
        intermediate_size=[config["intermediate_size"][0]] * N_LAYERS,
    )


def deepened(tensors: dict[str, Any]) -> None:
    """Make every layer from the first two, rolled so that no two are the same.

    As transformers 5 writes it, without the keys and values that are shared. The feed-forward of
    the sparse layers gives zeros: llama.cpp's variance differs from transformers', which grows
    with the depth.
    """
    size = N_LAYERS * _LAYER_INPUT
    name = "model.per_layer_model_projection.weight"
    tensors[name] = np.resize(tensors[name], (size, tensors[name].shape[1]))
    name = "model.embed_tokens_per_layer.weight"
    tensors[name] = np.stack([np.resize(row, size) for row in tensors[name]])
    pairs = [
        {name: tensors.pop(name) for name in list(tensors) if f".layers.{i}." in name}
        for i in range(2)
    ]
    for i in range(N_LAYERS):
        for name, values in pairs[i % 2].items():
            if i >= N_OWN and any(part in name for part in ("k_proj", "v_proj", "k_norm")):
                continue
            own = np.roll(values, i, axis=0)
            if i < N_SPARSE and "down_proj" in name:
                own = np.zeros_like(own)
            tensors[name.replace(f".layers.{i % 2}.", f".layers.{i}.")] = own
