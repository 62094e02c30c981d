"""What can go wrong in a conversion.

ConversionError
├── CheckpointError          the source is missing, incomplete or malformed (``path``)
│   ├── PickleRefused        only pickled weights, which can run code when read
│   ├── QuantizedCheckpoint  its weights are quantized already (``method``)
│   ├── UnsupportedArchitecture  no family for it (``architecture``, ``known``)
│   └── BadTensor            missing, unexpected or unusable (``tensor``)
├── TokenizerError           the tokenizer cannot be expressed in a GGUF file
├── UnknownQuantization      no such type (``name``, ``known``)
├── OutputError              the target cannot be written (``path``)
└── VerificationError        the written file is not what it must be (``check``)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class ConversionError(Exception):
    """Base of everything the converter raises on purpose."""


class CheckpointError(ConversionError):
    """The source is no checkpoint that can be read."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem


class PickleRefused(CheckpointError):
    """The weights are pickles, which can run any code when they are read."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            path,
            "the weights are pickled, and reading a pickle can run any code; "
            "save the model as safetensors first (model.save_pretrained(folder))",
        )


class QuantizedCheckpoint(CheckpointError):
    """The checkpoint's weights are in a quantized format that the converter does not read."""

    def __init__(self, path: Path | str, method: str) -> None:
        super().__init__(
            path,
            f"the weights are already quantized ({method}), and a GGUF is made from unquantized "
            "ones; convert the 16-bit checkpoint that it was made from",
        )
        self.method = method


class UnsupportedArchitecture(CheckpointError):
    """No family knows this architecture."""

    def __init__(self, path: Path | str, architecture: str, known: Sequence[str]) -> None:
        super().__init__(
            path,
            f"the architecture {architecture!r} is not supported; "
            f"supported are {', '.join(sorted(known))}",
        )
        self.architecture = architecture
        self.known = tuple(sorted(known))


class BadTensor(CheckpointError):
    """A tensor is missing, not expected, of the wrong shape, or holds NaN or infinity."""

    def __init__(self, path: Path | str, tensor: str, problem: str) -> None:
        super().__init__(path, f"tensor {tensor!r} {problem}")
        self.tensor = tensor


class TokenizerError(ConversionError):
    """The checkpoint's tokenizer is missing, broken or not expressible in GGUF."""


class UnknownQuantization(ConversionError):
    """There is no quantization of this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no quantization {name!r}; there are {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class OutputError(ConversionError):
    """The target file cannot be written."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem


class VerificationError(ConversionError):
    """The written file did not pass its checks and was removed."""

    def __init__(self, path: Path | str, check: str, problem: str) -> None:
        super().__init__(f"{path}: {check}: {problem}")
        self.path = Path(path)
        self.check = check
        self.problem = problem
