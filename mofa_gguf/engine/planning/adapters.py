"""What LoRA adapters take: their matrices lie where the tensors lie that they are added to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mofa_gguf.engine.files.adapter import check_adapter
from mofa_gguf.engine.files.header import GGUFHeader, TensorInfo, read_header
from mofa_gguf.engine.options import LoraAdapter
from mofa_gguf.engine.planning.facts import ModelFacts, block_of

_F32 = 4
_EXPERTS_USED = "expert_used_count"


@dataclass(frozen=True)
class AdapterFacts:
    """Sizes of all adapters of a model together."""

    layers: tuple[int, ...]
    """Bytes of the matrices for each layer."""
    n_other_bytes: int = 0
    """Of those for embeddings and output, which count as the output's."""
    n_wide: int = 0
    """Values of the widest product with an adapter, for one token."""

    def added_to(self, facts: ModelFacts) -> ModelFacts:
        """A model's facts with its adapters."""
        layers = tuple(
            layer._replace(n_adapter_bytes=n_bytes)
            for layer, n_bytes in zip(facts.layers, self.layers, strict=True)
        )
        return facts._replace(layers=layers, n_output_adapter_bytes=self.n_other_bytes)

    def compute_bytes(self, n_batch: int) -> int:
        """What graphs need for a batch beside the model's own: one product more at a time.

        llama.cpp makes the graphs for its adapters with the first batch only, so that a dry load
        cannot tell.
        """
        return self.n_wide * n_batch * _F32


def adapter_facts(
    header: GGUFHeader, tensors: Sequence[TensorInfo], adapters: Sequence[LoraAdapter]
) -> AdapterFacts:
    """The facts of ``adapters`` for a model with these tensors.

    Raises ModelFileError: no such file, no adapter, or one of another model.
    """
    n_layers = header.hyperparameter("block_count", 0)
    layers, n_other, n_wide = [0] * n_layers, 0, 0
    used = header.hyperparameter(_EXPERTS_USED, 1)
    n_used = used if isinstance(used, int) and used > 0 else 1
    for adapter in adapters:
        found = read_header(adapter.path)
        check_adapter(found, header, tensors)
        for tensor in found.tensors:
            block = block_of(tensor.name)
            if block is not None and block < n_layers:
                layers[block] += tensor.n_bytes
            else:
                n_other += tensor.n_bytes
            if tensor.name.endswith(".lora_b"):
                n_wide = max(n_wide, tensor.shape[1] * (n_used if len(tensor.shape) > 2 else 1))
    return AdapterFacts(tuple(layers), n_other, n_wide)
