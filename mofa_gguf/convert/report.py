"""What a conversion tells: its progress while it runs, a report when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ConversionProgress:
    """How far a conversion is. ``n_bytes`` count the tensors' data in the file to be written."""

    stage: str
    """"reading", "tokenizer", "writing" or "verifying"."""
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
    """Bytes of the whole file."""
    bits_per_weight: float
    pre_tokenizer: str | None
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Source tensors that were left out, each with the reason."""
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of each stage."""
    dry_run: bool = False

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        values = asdict(self)
        values["source"], values["output"] = str(self.source), str(self.output)
        return values
