"""What a family is: hyperparameters from config.json, and rules from tensor to tensor.

Names and keys of the GGUF side are llama.cpp's (src/llama-arch.cpp); what a model needs is what
its loader in src/models asks for.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from mofa_gguf.convert.block_scaled import read_stored
from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Weights, stacked

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS: llama.cpp ends the process beyond it
MAX_VOCABULARY = 2**24
MAX_WIDTH = 2**22

Dimensions = Mapping[str, int]
"""The sizes that tensors' shapes are made of, by name: "vocab", "embd", "ff" and so on."""

Transform = Callable[[Weights, Dimensions], Weights]


@dataclass(frozen=True)
class Rule:
    """One tensor of the checkpoint becomes one tensor of the GGUF file.

    ``{i}`` in both names stands for the layer's number. ``shape`` names dimensions, slowest
    first, as transformers stores them. A rule with a ``flag`` counts only where config.json sets
    that value to true; an ``optional`` tensor may be absent. One with a ``kind`` counts only in
    layers of that kind (:meth:`Family.kinds`).

    ``{e}`` in ``source`` stands for an expert's number: the experts' tensors, ``shape`` each, are
    stacked under a new first dimension (``stack`` names it where it counts something else).
    Several rules may take parts of the same source.
    """

    source: str
    target: str
    shape: tuple[str, ...]
    transform: Transform | None = None
    flag: str | None = None
    optional: bool = False
    kind: str | None = None
    stack: str = "experts"


class NamedWeights(NamedTuple):
    """A tensor under its GGUF name."""

    name: str
    weights: Weights


@dataclass(frozen=True)
class Traits:
    """What llama.cpp's choice of types looks at, beside names and shapes."""

    architecture: str
    n_layers: int
    n_gqa: int = 1
    """Query heads a key-value head."""
    n_experts: int = 0
    is_70b: bool = False
    """llama.cpp recognises the model as one of 70 billion parameters, which have their own rule."""


class Model(NamedTuple):
    """A checkpoint as its family sees it: everything the file needs but the tokenizer."""

    architecture: str
    """llama.cpp's name (general.architecture)."""
    source_architecture: str
    """The class of transformers."""
    metadata: Metadata
    tensors: tuple[NamedWeights, ...]
    n_vocab: int
    traits: Traits
    half_precision: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """By quantization: parts of names of matrices that stay in F16, unlike in llama.cpp."""
    skipped: Mapping[str, str] = MappingProxyType({})
    """Source tensors that are left out, each with the reason."""
    warnings: tuple[str, ...] = ()


class Family(ABC):
    """Base of the families. A subclass is data as far as it can be."""

    architecture: ClassVar[str]
    """llama.cpp's name of the architecture; prefix of its metadata keys."""
    rules: ClassVar[tuple[Rule, ...]]
    """Every tensor that the file may get, in the order in which they are written."""
    skip: ClassVar[Mapping[str, str]] = {}
    """Source names (shell patterns) that are not needed, each with the reason."""
    half_precision: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """By quantization: parts of GGUF names of matrices that stay in F16. An exception from
    llama.cpp's choice of types, to be explained by a measurement where it is made."""
    prefixes: ClassVar[tuple[str, ...]] = ()
    """Prefixes that some checkpoints put before every name."""
    defaults: ClassVar[Mapping[str, object]] = {}
    """What transformers assumes for values that config.json leaves out."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """This family's names of values in config.json, where they differ from the common ones."""

    def __init__(self, checkpoint: Checkpoint, source_architecture: str) -> None:
        self.checkpoint = checkpoint
        self.config = checkpoint.config.completed(self.defaults, self.renamed)
        self.source_architecture = source_architecture
        self.warnings: list[str] = []
        self.skipped: dict[str, str] = {}

    @classmethod
    def chosen(cls, checkpoint: Checkpoint) -> type[Family]:
        """The family itself, or another where a class of transformers has several inside."""
        return cls

    @abstractmethod
    def dimensions(self) -> Dimensions:
        """The sizes from config.json; "vocab" and "layers" must be among them."""

    @abstractmethod
    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """Set the keys that llama.cpp's loader asks for."""

    def traits(self, dimensions: Dimensions) -> Traits:
        """What the choice of tensor types depends on."""
        return Traits(self.architecture, dimensions["layers"])

    def extra_tensors(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """Tensors that are computed and not stored in the checkpoint."""
        return iter(())

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """What a layer is, for rules with a ``kind``; None stands for what is in no layer."""
        return ()

    def canonical(self, name: str) -> str:
        """A source name as the rules have it."""
        for prefix in self.prefixes:
            name = name.removeprefix(prefix)
        return name

    def key(self, name: str) -> str:
        """A metadata key of this architecture."""
        return f"{self.architecture}.{name}"

    def read(self) -> Model:
        """Everything together. Raises CheckpointError or BadTensor where the parts do not fit."""
        dimensions = self.dimensions()
        metadata = Metadata()
        metadata.string("general.architecture", self.architecture)
        self.hyperparameters(metadata, dimensions)
        tensors = (*self.extra_tensors(dimensions), *self._mapped(dimensions))
        return Model(
            architecture=self.architecture,
            source_architecture=self.source_architecture,
            metadata=metadata,
            tensors=tensors,
            n_vocab=dimensions["vocab"],
            traits=self.traits(dimensions),
            half_precision=self.half_precision,
            skipped=dict(self.skipped),
            warnings=tuple(self.warnings),
        )

    def _mapped(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """The checkpoint's tensors by the rules; every one of them is used or skipped."""
        available: dict[str, str] = {}
        for name in self.checkpoint.tensors:
            canonical = self.canonical(name)
            if canonical in available:
                problem = f"is the same tensor as {available[canonical]!r:.100}"
                raise BadTensor(self.checkpoint.file_of(name), name, problem)
            available[canonical] = name
        used: set[str] = set()
        for rule, source, target in self.expanded(dimensions["layers"]):
            names = [source]
            if "{e}" in source:
                names = [source.format(e=expert) for expert in range(dimensions[rule.stack])]
            missing = next((name for name in names if name not in available), None)
            if missing is None:
                parts = [self._weights(rule, available[name], dimensions) for name in names]
                weights = stacked(parts) if "{e}" in source else parts[0]
                used.update(weights.sources)
                if rule.transform:
                    weights = rule.transform(weights, dimensions)
                yield NamedWeights(target, weights)
            elif not rule.optional:
                raise BadTensor(
                    self.checkpoint.folder,
                    missing,
                    f"is missing; a {self.source_architecture} has one",
                )
        for canonical, name in available.items():
            if name not in used:
                self._skip(canonical, name)

    def expanded(self, n_layers: int) -> Iterator[tuple[Rule, str, str]]:
        """Every rule that counts, with its names filled in: per layer where it has ``{i}``."""
        active = [
            rule
            for rule in self.rules
            if rule.flag is None or self.config.boolean(rule.flag, default=False)
        ]
        layered = [rule for rule in active if "{i}" in rule.source]
        for rule in active:
            if rule not in layered:
                if rule.kind is None or rule.kind in self.kinds(None):
                    yield rule, rule.source, rule.target
            elif rule is layered[0]:
                for i in range(n_layers):
                    kinds = self.kinds(i)
                    for each in layered:
                        if each.kind is None or each.kind in kinds:
                            source = each.source.format(i=i, e="{e}")
                            yield each, source, each.target.format(i=i)

    def source_weights(self, name: str) -> Weights:
        """What is stored under a name, together with what belongs to it (scales)."""
        return read_stored(self.checkpoint, name)

    def _weights(self, rule: Rule, name: str, dimensions: Dimensions) -> Weights:
        weights = self.source_weights(name)
        expected = tuple(dimensions[size] for size in rule.shape)
        if weights.shape != expected:
            raise BadTensor(
                self.checkpoint.file_of(name),
                name,
                f"has the shape {list(weights.shape)}, but config.json makes it {list(expected)}",
            )
        return weights

    def _skip(self, canonical: str, name: str) -> None:
        for pattern, reason in self.skip.items():
            if fnmatch.fnmatchcase(canonical, pattern):
                self.skipped[name] = reason
                return
        raise BadTensor(
            self.checkpoint.file_of(name),
            name,
            f"is not part of a {self.source_architecture} as config.json describes it",
        )
