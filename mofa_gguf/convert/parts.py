"""One file, or several that llama.cpp reads as one.

Names and keys are those of llama.cpp's gguf-split: ``NAME-00001-of-00003.gguf``, ``split.no``,
``split.count`` and ``split.tensors.count``; the first part holds the metadata.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mofa_gguf.convert.errors import ConversionError, OverrideError
from mofa_gguf.convert.gguf_format import data_size, header_bytes, padded
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.plan import Plan, PlannedTensor

SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")
MAX_PARTS = 65535  # split.count is an unsigned 16-bit number
_SIZE = re.compile(r"(\d+)([MG])", re.IGNORECASE)
_UNITS = {"M": 10**6, "G": 10**9}
_PART_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_INFO_BYTES = 8 + 4 + 4 * 8 + 4 + 8  # of a tensor in the header, at most, beside its name


class Part:
    """One file to be written."""

    def __init__(self, path: Path, metadata: Metadata, plan: Plan) -> None:
        self.path = path
        self.metadata = metadata
        self.plan = plan

    @cached_property
    def header(self) -> bytes:
        """Everything before the tensors' data. Raises ConversionError for what has no form."""
        return header_bytes(self.metadata, self.plan.tensors)

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole file."""
        return len(self.header) + data_size(self.plan.tensors)


def read_max_size(text: str) -> int:
    """Bytes from ``500M`` or ``2G``, powers of 1000 as in gguf-split. Raises OverrideError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or int(found.group(1)) == 0:
        problem = f"{text!r:.40} is no size; write a number and M or G, such as 2G"
        raise OverrideError("--split-max-size", problem)
    return int(found.group(1)) * _UNITS[found.group(2).upper()]


def part_path(target: Path, i: int, n: int) -> Path:
    """The name of part ``i`` (from 0) of ``n`` for the file that would be ``target``."""
    return target.with_name(f"{target.name.removesuffix('.gguf')}-{i + 1:05d}-of-{n:05d}.gguf")


def number_of_part(path: Path) -> tuple[int, int] | None:
    """Which part of how many a file's name says it is, from 0; None for an ordinary name."""
    found = _PART_NAME.fullmatch(path.name)
    return (int(found.group(2)) - 1, int(found.group(3))) if found else None


def whole_name(path: Path) -> str:
    """The name of a file, or of the set that it is a part of, without number and ending."""
    found = _PART_NAME.fullmatch(path.name)
    return found.group(1) if found else path.name.removesuffix(".gguf")


def beside(path: Path, i: int) -> Path:
    """Part ``i`` (from 0) of the set that ``path``, named as a part, belongs to."""
    found = _PART_NAME.fullmatch(path.name)
    assert found is not None
    return path.with_name(f"{found.group(1)}-{i + 1:05d}-of-{found.group(3)}.gguf")


def divide(target: Path, metadata: Metadata, plan: Plan, max_bytes: int | None) -> tuple[Part, ...]:
    """The files to write: one, or where ``max_bytes`` are not enough for it, several.

    A tensor is never divided: one that is larger than ``max_bytes`` gets a part of its own, which
    is larger too.
    """
    whole = Part(target, metadata, plan)
    if max_bytes is None or whole.n_bytes <= max_bytes:
        return (whole,)
    groups = _groups(plan.tensors, len(header_bytes(metadata, ())), max_bytes)
    n = len(groups)
    if n > MAX_PARTS:
        raise ConversionError(f"{target}: parts of {max_bytes} bytes would be {n}; choose larger")
    return tuple(
        Part(
            part_path(target, i, n),
            _part_metadata(metadata if i == 0 else Metadata(), i, n, len(plan.tensors)),
            replace(plan, tensors=group),
        )
        for i, group in enumerate(groups)
    )


def _groups(
    tensors: Sequence[PlannedTensor], n_first: int, max_bytes: int
) -> list[tuple[PlannedTensor, ...]]:
    """Tensors in order, as many in a part as have room beside its header."""
    groups: list[list[PlannedTensor]] = [[]]
    reserve = 512  # the keys of a part, and padding
    size = n_first + reserve
    for tensor in tensors:
        more = padded(tensor.n_bytes) + len(tensor.name.encode()) + _INFO_BYTES
        if groups[-1] and size + more > max_bytes:
            groups.append([])
            size = reserve
        groups[-1].append(tensor)
        size += more
    return [tuple(group) for group in groups]


def _part_metadata(metadata: Metadata, i: int, n: int, n_tensors: int) -> Metadata:
    result = Metadata()
    result.update(metadata)
    result.uint16("split.no", i)
    result.uint16("split.count", n)
    result.int32("split.tensors.count", n_tensors)
    return result
