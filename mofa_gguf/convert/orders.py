"""What callers of the package ask for, checked and put together for the pipelines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mofa_gguf.convert.overrides import Overrides, read_overrides
from mofa_gguf.convert.parts import read_max_size, whole_name
from mofa_gguf.convert.pipeline import Order
from mofa_gguf.convert.quantizations import COPY, quantization_named
from mofa_gguf.convert.report import ConversionProgress

if TYPE_CHECKING:
    from mofa_gguf.convert.requantize import QuantizeOrder

AnyPath = str | os.PathLike[str]


class Types(NamedTuple):
    """Which tensors get other types than the quantization gives them, and the importance matrix."""

    tensor_types: Sequence[str]
    output_type: str | None
    embedding_type: str | None
    pure: bool
    imatrix: AnyPath | None

    def overrides(self) -> Overrides:
        """The first four, read. Raises OverrideError."""
        return read_overrides(
            tensor_types=self.tensor_types,
            output_type=self.output_type,
            embedding_type=self.embedding_type,
            pure=self.pure,
        )

    @property
    def imatrix_path(self) -> Path | None:
        """The importance matrix's file, if there is one."""
        return Path(self.imatrix) if self.imatrix is not None else None


class Work(NamedTuple):
    """How the work is done, and what is written."""

    split_max_size: str | None
    n_ctx: int | None
    force: bool
    threads: int | None
    dry_run: bool
    progress: Callable[[ConversionProgress], None] | None

    def check(self) -> None:
        """Raises ValueError for fewer than one thread."""
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")

    @property
    def max_part_bytes(self) -> int | None:
        """The largest file. Raises OverrideError for what is no size."""
        return read_max_size(self.split_max_size) if self.split_max_size else None


class Checking(NamedTuple):
    """How the result is checked."""

    verify: bool | str
    text: AnyPath | None
    allow_tokenizer_mismatch: bool

    @property
    def deep(self) -> bool:
        """Whether the result is compared with the F32 weights."""
        return self.verify == "deep"

    def check(self) -> None:
        """Raises ValueError for a text that is for nothing, and for another ``verify``."""
        if self.verify not in (True, False, "deep"):
            raise ValueError(f'verify must be true, false or "deep", not {self.verify!r:.40}')
        if self.text is not None and not self.deep:
            raise ValueError('verify_text is for verify="deep"')

    def deep_text(self) -> str | None:
        """What is read for the comparison. Raises ConversionError."""
        if not self.deep:
            return None
        from mofa_gguf.convert.comparison import read_text

        return read_text(Path(self.text) if self.text else None)


def conversion(
    source: AnyPath,
    output: AnyPath | None,
    quantization: str,
    types: Types,
    work: Work,
    checking: Checking,
) -> Order:
    """The order for :mod:`pipeline`. Raises ValueError and ConversionErrors."""
    work.check()
    checking.check()
    recipe = quantization_named(quantization)
    overrides = types.overrides()
    folder = Path(source)
    target = f"{folder.resolve().name}-{recipe.name}.gguf" if output is None else output
    return Order(
        source=folder,
        output=Path(target),
        quantization=recipe,
        overrides=overrides,
        imatrix=types.imatrix_path,
        max_part_bytes=work.max_part_bytes,
        n_ctx=work.n_ctx,
        force=work.force,
        n_threads=work.threads,
        verify=bool(checking.verify),
        deep_text=checking.deep_text(),
        dry_run=work.dry_run,
        allow_tokenizer_mismatch=checking.allow_tokenizer_mismatch,
        observer=work.progress,
    )


def requantization(
    source: AnyPath,
    output: AnyPath | None,
    quantization: str,
    types: Types,
    work: Work,
    *,
    allow_requantize: bool,
    verify: bool,
) -> QuantizeOrder:
    """The order for :mod:`requantize`. Raises ValueError and ConversionErrors."""
    from mofa_gguf.convert.requantize import QuantizeOrder

    work.check()
    copies = quantization.strip().upper() == COPY.name
    recipe = COPY if copies else quantization_named(quantization)
    path = Path(source)
    overrides = types.overrides()
    return QuantizeOrder(
        source=path,
        output=Path(f"{whole_name(path)}-{recipe.name}.gguf" if output is None else output),
        quantization=recipe,
        overrides=overrides,
        imatrix=types.imatrix_path,
        allow_requantize=allow_requantize,
        max_part_bytes=work.max_part_bytes,
        n_ctx=work.n_ctx,
        force=work.force,
        n_threads=work.threads,
        verify=verify,
        dry_run=work.dry_run,
        observer=work.progress,
    )
