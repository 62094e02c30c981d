"""What can go wrong in a conversion.

ConversionError
├── CheckpointError          the source is missing, incomplete or malformed (``path``)
│   ├── PickleRefused        only pickled weights, which can run code when read
│   ├── QuantizedCheckpoint  its weights are quantized already (``method``)
│   ├── UnsupportedArchitecture  no family for it (``architecture``, ``known``)
│   └── BadTensor            missing, unexpected or unusable (``tensor``)
├── TokenizerError           the tokenizer cannot be expressed in a GGUF file
├── UnknownQuantization      no such type (``name``, ``known``)
├── OverrideError            a choice of types that cannot be followed (``option``)
├── ImportanceError          no importance matrix that can be used (``path``)
├── TypeChoiceError          a tensor cannot get its type (``tensor``, ``type_name``)
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
    """No family knows this architecture; ``broken`` are plugins that might have known it."""

    def __init__(
        self,
        path: Path | str,
        architecture: str,
        known: Sequence[str],
        *,
        broken: Sequence[str] = (),
    ) -> None:
        failed = f". Plugins that failed to load: {'; '.join(broken)}" if broken else ""
        super().__init__(
            path,
            f"the architecture {architecture!r:.80} is not supported; "
            f"supported are {', '.join(sorted(known))}{failed}",
        )
        self.architecture = architecture
        self.known = tuple(sorted(known))


class BadTensor(CheckpointError):
    """A tensor is missing, not expected, of the wrong shape, or holds NaN or infinity."""

    def __init__(self, path: Path | str, tensor: str, problem: str) -> None:
        super().__init__(path, f"tensor {tensor!r:.100} {problem}")
        self.tensor = tensor


class TokenizerError(ConversionError):
    """The checkpoint's tokenizer is missing, broken or not expressible in GGUF."""


class UnknownQuantization(ConversionError):
    """There is no quantization of this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no quantization {name!r:.60}; there are {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class OverrideError(ConversionError):
    """An option that chooses types says something that cannot be followed."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class ImportanceError(ConversionError):
    """The file is no importance matrix, or not this model's."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem


class TypeChoiceError(ConversionError):
    """A tensor cannot be written in the type that was chosen for it."""

    def __init__(self, tensor: str, type_name: str, problem: str) -> None:
        super().__init__(f"tensor {tensor!r:.100} cannot become {type_name}: {problem}")
        self.tensor = tensor
        self.type_name = type_name
        self.problem = problem


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
