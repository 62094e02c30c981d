"""A LoRA adapter's folder, as PEFT saves it: the two matrices of each module, checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mofa_gguf.convert.adapter_config import (
    WEIGHTS_NAME,
    AdapterConfig,
    read_adapter_config,
)
from mofa_gguf.convert.checkpoint import inside
from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.safetensors_file import SafetensorsFile
from mofa_gguf.convert.weights import Weights, from_file

MAX_RANK = 2**14
_PAIR = re.compile(
    r"base_model\.model\.(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<side>[AB])(?P<end>\.weight)?"
)

# The weights that an adapter of embeddings was trained on, which peft may save beside it.
COPY = ".base_layer.weight"


@dataclass(frozen=True)
class Pair:
    """The two matrices of one module: A (rank, inputs) and B (outputs, rank)."""

    module: str
    a: Weights
    b: Weights
    rank: int
    scale: float
    is_embedding: bool


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, opened."""

    folder: Path
    config: AdapterConfig
    file: SafetensorsFile
    pairs: Mapping[str, Pair]
    """By module, without the prefix that PEFT puts before it."""


def open_adapter(folder: Path) -> Adapter:
    """Open an adapter's folder; only headers are read. Raises CheckpointError or BadTensor."""
    config = read_adapter_config(folder)
    path = inside(folder, WEIGHTS_NAME)
    file = SafetensorsFile(path)
    return Adapter(folder, config, file, {pair.module: pair for pair in _pairs(file, config)})


def _pairs(file: SafetensorsFile, config: AdapterConfig) -> Iterator[Pair]:
    halves: dict[tuple[str, bool], dict[str, Weights]] = {}
    for name, tensor in file.tensors.items():
        if name.endswith(COPY):
            continue
        match = _PAIR.fullmatch(name)
        if match is None or bool(match["kind"]) == bool(match["end"]):
            raise BadTensor(file.path, name, _foreign(name))
        if len(tensor.shape) != 2 or 0 in tensor.shape:
            raise BadTensor(file.path, name, f"has the shape {list(tensor.shape)}, not a matrix's")
        side = halves.setdefault((match["module"], bool(match["kind"])), {})
        side[match["side"]] = replace(from_file(file, name), sources=(name,))
    if not halves:
        raise BadTensor(file.path, "lora_A", "is missing: the file holds no tensor")
    for (module, is_embedding), sides in halves.items():
        if len(sides) < 2:
            lacking = "A" if "B" in sides else "B"
            raise BadTensor(
                file.path, f"{module}.lora_{lacking}", "is missing; its other half is there"
            )
        a, b = sides["A"], sides["B"]
        rank = a.shape[0]
        if b.shape[1] != rank or rank > MAX_RANK:
            raise BadTensor(
                file.path,
                module,
                f"has matrices of {list(a.shape)} and {list(b.shape)}, which do not fit together",
            )
        yield Pair(module, a, b, rank, config.scale(module, rank), is_embedding)


def _foreign(name: str) -> str:
    if "lora_magnitude_vector" in name:
        return "belongs to DoRA, which llama.cpp cannot compute; merge the adapter"
    if ".lora_" in name:
        return "is no matrix of a LoRA adapter as PEFT saves it"
    return (
        "is a whole tensor and no LoRA matrix (modules_to_save, or resized embeddings), which a "
        "GGUF adapter cannot hold; merge the adapter into its base model (merge_and_unload)"
    )
