"""From a safetensors checkpoint to a quantized GGUF file, without torch.

config, safetensors_file, checkpoint    the folder: read with bounds, mapped, nothing executed
families/       config.json and tensor names -> llama.cpp's keys and names
tokenizer/      the vocabulary, measured against the checkpoint's own tokenizer
quantizations, mixture, plan            which tensor gets which type
weights, encode, writer, gguf_format, output    one pass: read, transform, quantize, write
verify          is the file what it should be
pipeline        the stages in order
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mofa_gguf.convert.errors import (
    BadTensor,
    CheckpointError,
    ConversionError,
    OutputError,
    PickleRefused,
    QuantizedCheckpoint,
    TokenizerError,
    UnknownQuantization,
    UnsupportedArchitecture,
    VerificationError,
)
from mofa_gguf.convert.report import Check, ConversionProgress, ConversionReport, TensorReport

__all__ = [
    "BadTensor",
    "Check",
    "CheckpointError",
    "ConversionError",
    "ConversionProgress",
    "ConversionReport",
    "OutputError",
    "PickleRefused",
    "QuantizedCheckpoint",
    "TensorReport",
    "TokenizerError",
    "UnknownQuantization",
    "UnsupportedArchitecture",
    "VerificationError",
    "architectures",
    "convert",
]


def architectures() -> dict[str, str]:
    """What can be converted: classes of transformers, each with llama.cpp's name of it."""
    from mofa_gguf.convert.families import known

    return {name: family.architecture for name, family in sorted(known().items())}


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    quantization: str = "Q4_K_M",
    *,
    force: bool = False,
    threads: int | None = None,
    verify: bool = True,
    dry_run: bool = False,
    allow_tokenizer_mismatch: bool = False,
    progress: Callable[[ConversionProgress], None] | None = None,
) -> ConversionReport:
    """Convert the checkpoint in the folder ``source`` to the GGUF file ``output``.

    ``source`` holds config.json, a tokenizer and safetensors weights, as transformers'
    ``save_pretrained`` writes them. Without ``output`` the file is named after the folder and the
    quantization and put into the working folder. It appears under its name only when it is whole
    and, with ``verify``, has passed its checks; an existing file is replaced only with ``force``.

    ``threads`` quantize (by default one for every CPU that the process may use). ``dry_run`` plans
    without reading weights or writing anything. ``progress`` is called in the calling thread,
    often. ``allow_tokenizer_mismatch`` accepts a vocabulary with which llama.cpp splits some texts
    in another way than the checkpoint's tokenizer; the report says so.

    Raises UnknownQuantization, CheckpointError (missing or broken source, unknown architecture,
    pickled or already quantized weights), TokenizerError, OutputError (target exists, no
    permission, disk full) and VerificationError; all are ConversionErrors. ValueError for fewer
    than one thread.
    """
    from mofa_gguf.convert import pipeline
    from mofa_gguf.convert.quantizations import quantization_named

    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    recipe = quantization_named(quantization)
    folder = Path(source)
    target = f"{folder.resolve().name}-{recipe.name}.gguf" if output is None else output
    return pipeline.run(
        pipeline.Order(
            source=folder,
            output=Path(target),
            quantization=recipe,
            force=force,
            n_threads=threads,
            verify=verify,
            dry_run=dry_run,
            allow_tokenizer_mismatch=allow_tokenizer_mismatch,
            observer=progress,
        )
    )
