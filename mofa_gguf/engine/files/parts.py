"""The files of a divided model, checked as a set before llama.cpp opens them.

The keys and names are those of ``llama_split_path`` (src/llama.cpp) and of the loader
(src/llama-model-loader.cpp), which ends the process where a part states its number in another
type than it expects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.header import GGUFHeader, TensorInfo, read_header

_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_U16 = 2  # gguf.h, GGUF_TYPE_UINT16
_MAX_PARTS = 10_000


def read_parts(first: GGUFHeader) -> tuple[GGUFHeader, ...]:
    """The headers of all parts of the model that ``first`` is the first part of, itself included.

    Raises ModelFileError for a file that is not the first, a missing or a foreign part, and for
    parts that do not make up the whole.
    """
    n_parts = first.metadata.get("split.count", 0)
    if not isinstance(n_parts, int) or not 0 <= n_parts <= _MAX_PARTS:
        raise ModelFileError(first.path, f"is damaged: it says that it is in {n_parts!r} parts")
    if n_parts <= 1:
        return (first,)
    found = _NAME.search(first.path.name)
    if found is None or int(found[1]) != 1 or int(found[2]) != n_parts:
        raise ModelFileError(
            first.path,
            f"is one of {n_parts} parts, and not the first by its name; give the file whose name "
            f"ends in -00001-of-{n_parts:05d}.gguf",
        )
    _check_number(first, 0, n_parts)
    stem = first.path.name[: found.start()]
    parts = [first]
    for number in range(2, n_parts + 1):
        path = first.path.with_name(f"{stem}-{number:05d}-of-{n_parts:05d}.gguf")
        if not path.exists():
            raise ModelFileError(path, f"is missing: it is part {number} of {n_parts}")
        part = read_header(path)
        _check_number(part, number - 1, n_parts)
        parts.append(part)
    _check_whole(first, [tensor for part in parts for tensor in part.tensors])
    return tuple(parts)


def _check_number(part: GGUFHeader, number: int, n_parts: int) -> None:
    if part.metadata.get("split.no") != number or part.types.get("split.no") != _U16:
        raise ModelFileError(
            part.path, f"is named as part {number + 1} of {n_parts}, but does not say that it is"
        )


def _check_whole(first: GGUFHeader, tensors: Sequence[TensorInfo]) -> None:
    names = {tensor.name for tensor in tensors}
    if len(names) != len(tensors):
        raise ModelFileError(first.path, "and its other parts hold the same tensor twice")
    stated = first.metadata.get("split.tensors.count")
    if stated != len(tensors):
        raise ModelFileError(
            first.path, f"and its other parts hold {len(tensors)} tensors, not {stated}"
        )
