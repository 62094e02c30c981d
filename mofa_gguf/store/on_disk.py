"""Files and folders of models as they lie on disk: which file llama.cpp is to open."""

from __future__ import annotations

import re
from pathlib import Path

from mofa_gguf.store.errors import NotAModel

# gguf-split's names: llama.cpp, src/llama.cpp, llama_split_path.
SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_MAGIC = b"GGUF"
# The formats that GGUF replaced in 2023; their magic numbers, as little-endian bytes.
_OLD_MAGICS = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def model_path(path: Path) -> Path:
    """The GGUF file that a path stands for, or the path itself if it is a folder without one.

    Such a folder need not be a checkpoint: the converter says what is missing in it. Raises
    NotAModel.
    """
    if not path.is_dir():
        return _gguf_file(path)
    inside = None if (path / "config.json").is_file() else _only_gguf(path)
    return path if inside is None else _gguf_file(inside)


def _only_gguf(folder: Path) -> Path | None:
    """The one model among a folder's GGUF files, a split one counting once."""
    first_files = []
    for path in sorted(folder.glob("*.gguf")):
        split = SPLIT_NAME.fullmatch(path.name)
        if split is None or int(split["part"]) == 1:
            first_files.append(path)
    if len(first_files) > 1:
        names = ", ".join(path.name for path in first_files)
        raise NotAModel(folder, f"holds several models, name one of its files: {names}")
    return first_files[0] if first_files else None


def _gguf_file(path: Path) -> Path:
    """``path`` if it is a GGUF file, the first part if it is one of several. Raises NotAModel."""
    if path.suffix.lower() == ".safetensors":
        raise NotAModel(path, "give the checkpoint's folder instead of one of its weight files")
    if path.suffix.lower() in _PICKLES:
        raise NotAModel(
            path,
            "pickled weights are not read, because that can run any code; save the model as "
            "safetensors, or get a GGUF version",
        )
    first = _first_part(path)
    if first.exists() and not first.is_file():  # a pipe would be waited for without end
        raise NotAModel(first, "is no ordinary file")
    try:
        with first.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError as error:
        raise NotAModel(first, f"cannot be read ({error.strerror or error})") from error
    if start in _OLD_MAGICS:
        raise NotAModel(
            first,
            f"is in llama.cpp's format of before GGUF ({_OLD_MAGICS[start]}), which it reads no "
            "more; get the model as GGUF or convert its checkpoint",
        )
    if start != _MAGIC:
        raise NotAModel(first, "is no GGUF file (it does not begin with 'GGUF'); get it again")
    return first


def _first_part(path: Path) -> Path:
    """The file that llama.cpp opens for a split model; raises NotAModel if parts are missing."""
    split = SPLIT_NAME.fullmatch(path.name)
    if split is None:
        return path
    count = int(split["count"])
    parts = [
        path.with_name(f"{split['stem']}-{part:05d}-of-{count:05d}.gguf")
        for part in range(1, min(count, 10_000) + 1)
    ]
    missing = [part.name for part in parts if not part.is_file()]
    if missing or not parts:
        listed = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        raise NotAModel(path, f"is one of {count} parts, and these are missing: {listed}")
    return parts[0]
