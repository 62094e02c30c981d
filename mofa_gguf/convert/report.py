"""What a conversion tells: its progress while it runs, a report when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mofa_gguf.convert.comparison import Comparison
    from mofa_gguf.convert.memory import MemoryEstimate


class ConversionProgress(NamedTuple):
    """How far a conversion is. ``n_bytes`` count the tensors' data in the file to be written."""

    stage: str
    """"reading", "tokenizer", "writing" or "verifying"; "reading the text" for an importance
    matrix, whose bytes are the text's."""
    tensor: str
    """The tensor written last; empty in other stages."""
    n_tensors_done: int
    n_tensors: int
    n_bytes_done: int
    n_bytes: int


@dataclass(frozen=True)
class TensorReport:
    """One tensor of the file: where it comes from and what became of it."""

    name: str
    source_name: str
    """Empty for tensors that the converter computes."""
    shape: tuple[int, ...]
    """As in the checkpoint: the row's length comes last."""
    source_type: str
    target_type: str
    n_bytes: int


@dataclass(frozen=True)
class Check:
    """One thing that was verified after writing."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class ConversionReport:
    """What was converted, into what, how it was checked and how long it took.

    After a dry run ``output`` is where the file would be, and there are no checks.
    """

    source: Path
    output: Path
    architecture: str
    """llama.cpp's name of the architecture."""
    family: str
    """The class of transformers that config.json names."""
    quantization: str
    n_parameters: int
    tensors: tuple[TensorReport, ...]
    n_bytes_in: int
    """Bytes of all tensors in the checkpoint."""
    n_bytes_out: int
    """Bytes of the whole file, or of all its parts."""
    bits_per_weight: float
    pre_tokenizer: str | None
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Source tensors that were left out, each with the reason."""
    checks: tuple[Check, ...] = ()
    comparison: Comparison | None = None
    """With ``verify="deep"``: how far the file is from the F32 weights."""
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of each stage."""
    dry_run: bool = False
    n_files: int = 1
    """More than one where the file was split; ``output`` is the first then."""
    memory: MemoryEstimate | None = None
    """After a dry run: what running the model will take."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        values = asdict(self)
        if self.comparison is not None:
            ratio = self.comparison.perplexity_ratio
            values["comparison"] = {**asdict(self.comparison), "perplexity_ratio": ratio}
        values["source"], values["output"] = str(self.source), str(self.output)
        return values


def in_short(names: tuple[str, ...]) -> str:
    """The sources of a tensor; a stack of experts may have hundreds."""
    if len(names) <= 2:
        return ", ".join(names)
    return f"{names[0]}, ..., {names[-1]} ({len(names)} tensors)"
