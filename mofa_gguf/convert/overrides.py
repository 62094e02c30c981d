"""What a caller may say about single tensors' types, on top of the quantization's own choice.

The options are those of llama.cpp's quantize tool (tools/quantize/quantize.cpp): patterns of
names, a type for the output matrix, one for the token embeddings, and no mixture at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from mofa_gguf.convert.errors import OverrideError
from mofa_gguf.engine.files.tensor_types import TensorType
from mofa_gguf.engine.quantize import producible_types


class TensorPattern(NamedTuple):
    """A type for every tensor in whose GGUF name a regular expression is found."""

    pattern: re.Pattern[str]
    type: TensorType

    def __str__(self) -> str:
        return f"{self.pattern.pattern}={self.type.name}"


class Overrides(NamedTuple):
    """Choices that come before the quantization's."""

    patterns: tuple[TensorPattern, ...] = ()
    """The first one that fits a name counts."""
    output: TensorType | None = None
    embedding: TensorType | None = None
    pure: bool = False
    """Every tensor that may be quantized gets the quantization's default type."""

    def for_name(self, name: str) -> TensorType | None:
        """The type that a pattern gives a tensor, if one does."""
        return next((p.type for p in self.patterns if p.pattern.search(name)), None)

    def unused(self, names: Sequence[str]) -> list[TensorPattern]:
        """Patterns that fit no name, which are probably misspelt."""
        return [p for p in self.patterns if not any(p.pattern.search(name) for name in names)]

    def __str__(self) -> str:
        """All that was said, as options: part of a file's provenance."""
        said = [f"--tensor-type {pattern}" for pattern in self.patterns]
        said += [f"--output-type {self.output.name}"] if self.output else []
        said += [f"--embedding-type {self.embedding.name}"] if self.embedding else []
        return " ".join([*said, "--pure"] if self.pure else said)


NO_OVERRIDES = Overrides()


def read_overrides(
    *,
    tensor_types: Sequence[str] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
) -> Overrides:
    """The options as their users write them: ``PATTERN=TYPE``, and names of types.

    Upper and lower case are the same, in patterns too (llama.cpp's tool makes patterns lower case).
    Raises OverrideError.
    """
    return Overrides(
        tuple(_pattern(text) for text in tensor_types),
        _type(output_type, "--output-type") if output_type else None,
        _type(embedding_type, "--embedding-type") if embedding_type else None,
        pure,
    )


def _pattern(text: str) -> TensorPattern:
    expression, separator, name = text.rpartition("=")
    if not separator or not expression or not name:
        problem = f"{text!r:.80} is not PATTERN=TYPE, such as 'ffn_down=Q6_K'"
        raise OverrideError("--tensor-type", problem)
    try:
        pattern = re.compile(expression, re.IGNORECASE)
    except re.error as error:
        problem = f"{expression!r:.80} is no regular expression ({error})"
        raise OverrideError("--tensor-type", problem) from error
    return TensorPattern(pattern, _type(name, "--tensor-type"))


def _type(name: str, option: str) -> TensorType:
    known = {kind.name: kind for kind in producible_types()}
    found = known.get(name.strip().upper())
    if found is None:
        problem = f"there is no tensor type {name!r:.40}; there are {', '.join(known)}"
        raise OverrideError(option, problem)
    return found
