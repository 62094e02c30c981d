"""The checks in front of llama.cpp, all of them, on a file that is about to be loaded.

llama.cpp answers many broken files with an error, and ends the process on others. These checks
are for the latter: :mod:`header` (layout), :mod:`kinds`, :mod:`parts`, :mod:`hyperparameters` (with
:mod:`bounds`), :mod:`tensors` and :mod:`vocabulary`, each with its source in llama.cpp named.
"""

from __future__ import annotations

from collections.abc import Sequence

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.files.hyperparameters import check_hyperparameters
from mofa_gguf.engine.files.tensors import check_tensors
from mofa_gguf.engine.files.vocabulary import check_vocabulary

# Raised with every change of the checks: files that passed others are checked again.
RULES = 1
_LONGEST = 500
TENSOR_ALIGNMENT = 32  # ggml/src/ggml-impl.h


def check_contents(parts: Sequence[GGUFHeader]) -> None:
    """Raises ModelFileError or UnsupportedModel for a model that llama.cpp should not see.

    ``parts`` are the headers of all its files, the first with the metadata.
    """
    header = parts[0]
    tensors = [tensor for part in parts for tensor in part.tensors]
    _check_places(parts)
    try:
        check_hyperparameters(header)
        check_tensors(header, tensors)
        check_vocabulary(header, tensors)
    except ModelFileError as error:
        # What the sentence quotes comes from the file.
        shown = "".join(c if c.isprintable() else "?" for c in error.problem)[:_LONGEST]
        if shown == error.problem:
            raise
        raise ModelFileError(error.path, shown) from error


def _check_places(parts: Sequence[GGUFHeader]) -> None:
    """Tensors lie where ggml can compute with them once the file is mapped."""
    for part in parts:
        for tensor in part.tensors:
            if (part.data_offset + tensor.offset) % TENSOR_ALIGNMENT:
                stated = part.metadata.get("general.alignment")
                raise ModelFileError(
                    part.path,
                    f"has tensors at odd places (its alignment is {stated}; llama.cpp needs "
                    f"{TENSOR_ALIGNMENT}); convert it again",
                )
