"""From a safetensors checkpoint to a quantized GGUF file, without torch.

config, safetensors_file, checkpoint    the folder: read with bounds, mapped, nothing executed
families/       config.json and tensor names -> llama.cpp's keys and names
plugins         families that other distributions bring
tokenizer/      the vocabulary, measured against the checkpoint's own tokenizer
quantizations, overrides, importance    what was asked for
choice, mixture, roles, plan            which tensor gets which type
weights, encode, writer, gguf_format    one pass: read, transform, quantize, write
parts, output, output_set, delivery     the target: one file or several, whole or not at all
verify          is the file what it should be
comparison, deep    how far it is from the unquantized weights
orders          what callers ask for, checked
pipeline        the stages in order
gguf_source, requantize     from GGUF to GGUF
adapter, adapter_config, adapter_pipeline    LoRA adapters of PEFT
importance_run  computing an importance matrix
"""

from __future__ import annotations

# Little is imported here: the package's root imports this module, whatever is asked of it.
TYPE_CHECKING = False  # as in typing, which takes a while to import
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from typing import Any, Literal

    from mofa_gguf.convert.errors import (
        BadTensor,
        CheckpointError,
        ConversionError,
        ImportanceError,
        OutputError,
        OverrideError,
        PickleRefused,
        QuantizedCheckpoint,
        TokenizerError,
        TypeChoiceError,
        UnknownQuantization,
        UnsupportedArchitecture,
        VerificationError,
    )
    from mofa_gguf.convert.importance_run import ImportanceReport
    from mofa_gguf.convert.memory import MemoryEstimate
    from mofa_gguf.convert.report import (
        Check,
        ConversionProgress,
        ConversionReport,
        TensorReport,
    )

__all__ = [
    "BadTensor",
    "Check",
    "CheckpointError",
    "ConversionError",
    "ConversionProgress",
    "ConversionReport",
    "ImportanceError",
    "ImportanceReport",
    "MemoryEstimate",
    "OutputError",
    "OverrideError",
    "PickleRefused",
    "QuantizedCheckpoint",
    "TensorReport",
    "TokenizerError",
    "TypeChoiceError",
    "UnknownQuantization",
    "UnsupportedArchitecture",
    "VerificationError",
    "architectures",
    "compute_importance",
    "convert",
    "convert_adapter",
    "quantize",
]

# Where those of the types above are that are no errors.
_HOMES = {
    "Check": "report",
    "ConversionProgress": "report",
    "ConversionReport": "report",
    "ImportanceReport": "importance_run",
    "MemoryEstimate": "memory",
    "TensorReport": "report",
}


def __getattr__(name: str) -> Any:
    """Import an error or a report's type when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    globals()[name] = value = getattr(home, name)
    return value


def architectures() -> dict[str, str]:
    """What can be converted: classes of transformers, each with llama.cpp's name of it.

    Families of installed plugins are among them.
    """
    from mofa_gguf.convert.plugins import supported

    return {entry.name: entry.architecture for entry in supported()[0]}


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    quantization: str = "Q4_K_M",
    *,
    tensor_types: Sequence[str] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    split_max_size: str | None = None,
    n_ctx: int | None = None,
    force: bool = False,
    threads: int | None = None,
    verify: bool | Literal["deep"] = True,
    verify_text: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    allow_tokenizer_mismatch: bool = False,
    progress: Callable[[ConversionProgress], None] | None = None,
) -> ConversionReport:
    """Convert the checkpoint in the folder ``source`` to the GGUF file ``output``.

    ``source`` is what transformers' ``save_pretrained`` writes, with safetensors weights. The file
    (by default named after folder and quantization, in the working folder) appears only when it is
    whole and, with ``verify``, has passed its checks; ``force`` replaces an existing one.

    ``tensor_types`` change the quantization's choice for tensors whose GGUF name a regular
    expression is found in (``"ffn_down=Q6_K"``), ``output_type`` and ``embedding_type`` for the
    output matrix and the token embeddings; ``pure`` gives all the same. ``imatrix`` is an
    importance matrix of llama.cpp's (GGUF or .dat), which the smallest quantizations need.
    ``split_max_size`` ("2G") makes several files of a larger one. ``n_ctx`` is the context for
    which the report estimates the memory to run the model.

    ``verify="deep"`` also compares with the F32 weights on the text ``verify_text`` (or one of the
    package's); see the report's ``comparison``. ``dry_run`` plans without reading weights or
    writing. ``progress`` is called often, in the calling thread. ``allow_tokenizer_mismatch``
    accepts that llama.cpp splits some texts otherwise than the checkpoint; the report says so.

    Raises ConversionErrors: UnknownQuantization, OverrideError, ImportanceError, TypeChoiceError,
    CheckpointError, TokenizerError, OutputError, VerificationError; and ValueError.
    """
    from mofa_gguf.convert import orders, pipeline

    types = orders.Types(tensor_types, output_type, embedding_type, pure, imatrix)
    work = orders.Work(split_max_size, n_ctx, force, threads, dry_run, progress)
    checking = orders.Checking(verify, verify_text, allow_tokenizer_mismatch)
    return pipeline.run(orders.conversion(source, output, quantization, types, work, checking))


def convert_adapter(
    source: str | os.PathLike[str],
    base: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    type_name: str = "F32",
    *,
    force: bool = False,
    verify: bool = True,
    dry_run: bool = False,
) -> ConversionReport:
    """Convert a PEFT LoRA adapter to a GGUF adapter for the model in the checkpoint ``base``.

    ``source`` is a folder with adapter_config.json and adapter_model.safetensors; of ``base`` only
    the configuration and the tensors' names and shapes count. ``type_name`` is F32, F16 or BF16.
    Without ``output`` the file is named after the adapter's folder, with ``-lora``.

    Raises CheckpointError (also for DoRA, whole modules and whatever else llama.cpp's adapters
    cannot hold, by name), UnknownQuantization, OutputError and VerificationError.
    """
    from pathlib import Path

    from mofa_gguf.convert import adapter_pipeline

    kind = adapter_pipeline.type_named(type_name)
    folder = Path(source)
    target = f"{folder.resolve().name}-lora-{kind.name}.gguf" if output is None else output
    return adapter_pipeline.run(
        adapter_pipeline.AdapterOrder(
            source=folder,
            base=Path(base),
            output=Path(target),
            type=kind,
            force=force,
            verify=verify,
            dry_run=dry_run,
        )
    )


def quantize(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    quantization: str = "Q4_K_M",
    *,
    tensor_types: Sequence[str] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    pure: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    allow_requantize: bool = False,
    split_max_size: str | None = None,
    n_ctx: int | None = None,
    force: bool = False,
    threads: int | None = None,
    verify: bool = True,
    dry_run: bool = False,
    progress: Callable[[ConversionProgress], None] | None = None,
) -> ConversionReport:
    """Make of the GGUF file ``source`` one with other types, as llama.cpp's quantizer does.

    ``source`` may be the first of several parts (``NAME-00001-of-00003.gguf``). Its metadata is
    kept. ``quantization`` is one of ``convert``'s, or ``COPY``, which keeps every tensor: for
    dividing a file (``split_max_size``) and for joining parts. What is quantized already is
    quantized again only with ``allow_requantize``, which loses more than starting from the
    original. Everything else is as in :func:`convert`.

    Raises UnknownQuantization, OverrideError, ImportanceError, TypeChoiceError, CheckpointError
    (``source`` is missing, no GGUF file, or an incomplete set), OutputError, VerificationError.
    ValueError for fewer than one thread.
    """
    from mofa_gguf.convert import orders, requantize

    types = orders.Types(tensor_types, output_type, embedding_type, pure, imatrix)
    work = orders.Work(split_max_size, n_ctx, force, threads, dry_run, progress)
    order = orders.requantization(
        source,
        output,
        quantization,
        types,
        work,
        allow_requantize=allow_requantize,
        verify=verify,
    )
    return requantize.run(order)


def compute_importance(
    model: str | os.PathLike[str],
    text: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    chunk_size: int = 512,
    max_chunks: int | None = None,
    with_output: bool = False,
    force: bool = False,
    threads: int | None = None,
    progress: Callable[[ConversionProgress], None] | None = None,
) -> ImportanceReport:
    """Compute an importance matrix: how much each column of each matrix matters on a text.

    The GGUF file ``model`` reads the text file ``text`` in chunks of ``chunk_size`` tokens, at
    most ``max_chunks``; ``output`` gets llama.cpp's GGUF form of it, for the ``imatrix`` of
    :func:`convert` and :func:`quantize` and for llama.cpp's own quantizer. ``with_output`` takes
    the output matrix along. Best from a model in 16 bits, and a text of what it will be used for.

    Raises ImportanceError (the model cannot be loaded, or reads no such chunk), OutputError and
    ConversionError (the text cannot be read). ValueError for numbers below one.
    """
    from pathlib import Path

    from mofa_gguf.convert.importance_run import ImportanceOrder, run

    for name, value in (
        ("chunk_size", chunk_size),
        ("max_chunks", max_chunks),
        ("threads", threads),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    return run(
        ImportanceOrder(
            model=Path(model),
            text=Path(text),
            output=Path(output),
            chunk_size=chunk_size,
            max_chunks=max_chunks,
            with_output=with_output,
            force=force,
            n_threads=threads,
            observer=progress,
        )
    )
