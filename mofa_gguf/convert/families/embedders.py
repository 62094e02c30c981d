"""Decoders without a head that give embeddings: Qwen3-Embedding, EmbeddingGemma and their kind.

How a text's vector is made of its tokens' is read by sentence_transformers.py. llama.cpp:
src/models/gemma-embedding.cpp; the others are their chat models' architectures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from mofa_gguf.convert.checkpoint import inside
from mofa_gguf.convert.errors import BadTensor, CheckpointError
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, NamedWeights
from mofa_gguf.convert.families.gemma3 import Gemma3
from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.families.qwen2 import Qwen2
from mofa_gguf.convert.families.qwen3 import Qwen3
from mofa_gguf.convert.families.windows import sliding_layers
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.safetensors_file import SafetensorsFile
from mofa_gguf.convert.weights import Weights, from_file

_DENSE = ("dense_2", "dense_3")
"""llama.cpp's names of the matrices behind the pooling, in order."""
_MATRIX = "linear.weight"

register("LlamaModel", "MistralModel")(Llama)
register("Qwen2Model")(Qwen2)
register("Qwen3Model")(Qwen3)


@register("Gemma3TextModel")
class EmbeddingGemma(Gemma3):
    """Gemma 3 that attends to both sides, and two matrices behind the pooling."""

    architecture = "gemma-embedding"
    takes_dense = True
    fixed: ClassVar[Mapping[str, object]] = {**Gemma3.fixed, "use_bidirectional_attention": True}

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """Gemma's keys and the sizes of the matrices."""
        if not self.config.boolean("use_bidirectional_attention", default=False):
            raise self.config.fail("use_bidirectional_attention", "must be true for llama.cpp")
        super().hyperparameters(metadata, dimensions)
        if all(sliding_layers(self.config, dimensions["layers"], period=self.period)):
            # llama.cpp ends the process then.
            raise self.config.fail("layer_types", "must hold full_attention at least once")
        metadata.boolean(self.key("attention.causal"), False)
        for name, weights in self._matrices(dimensions["embd"]):
            rows, columns = weights.shape
            metadata.uint32(self.key(f"{name}_feat_in"), columns)
            metadata.uint32(self.key(f"{name}_feat_out"), rows)

    def extra_tensors(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """The matrices behind the pooling, which lie in folders of their own."""
        yield from super().extra_tensors(dimensions)
        for name, weights in self._matrices(dimensions["embd"]):
            yield NamedWeights(f"{name}.weight", weights)

    def _matrices(self, width: int) -> list[tuple[str, Weights]]:
        """llama.cpp's name of each and its weights: from vectors of ``width`` to such ones."""
        folders = self._embedding.dense_folders
        if len(folders) not in (0, len(_DENSE)):
            raise CheckpointError(
                inside(self.checkpoint.folder, "modules.json"),
                f"has {len(folders)} modules that are dense; llama.cpp takes none or two",
            )
        matrices = []
        n_columns = width
        for name, folder in zip(_DENSE, folders, strict=False):
            weights = self._matrix(folder)
            if len(weights.shape) != 2 or weights.shape[1] != n_columns:
                raise self._misshapen(weights, f"must have {n_columns} columns")
            n_columns = weights.shape[0]
            matrices.append((name, weights))
        if matrices and n_columns != width:
            raise self._misshapen(matrices[-1][1], f"must have {width} rows for llama.cpp")
        return matrices

    def _matrix(self, folder: str) -> Weights:
        settings = self.checkpoint.optional_json(folder, "config.json")
        activation = "" if settings is None else settings.string("activation_function", default="")
        if settings is not None and activation.rpartition(".")[2] not in ("", "Identity"):
            raise settings.fail("activation_function", "must be Identity for llama.cpp")
        file = SafetensorsFile(inside(self.checkpoint.folder, f"{folder}/model.safetensors"))
        if set(file.tensors) != {_MATRIX}:
            raise BadTensor(file.path, _MATRIX, "must be the only tensor for llama.cpp")
        return from_file(file, _MATRIX)

    @staticmethod
    def _misshapen(weights: Weights, problem: str) -> BadTensor:
        return BadTensor(weights.origin or "computed", _MATRIX, problem)
