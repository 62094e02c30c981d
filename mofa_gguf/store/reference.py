"""What a ``model`` setting names: the bundled demo, a path, or a repository of the hub.

Nothing here opens a file or a socket; the decision is made from the string and from what exists.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from mofa_gguf.store.errors import DownloadFailed, ModelMissing

DEMO = "demo"

_HUB_PREFIXES = ("hf://", "hub:")
# Names as the hub allows them: letters, digits, "-", "_", "."; no leading separator.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_HUB_ID = re.compile(
    rf"(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[A-Za-z0-9._/-]+?))?(?::(?P<choice>.+))?"
)
# A name with one of these endings is a file's name, so a typing error in a path is never looked
# for on the hub.
_FILE_ENDINGS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".json", ".zip")


class HubReference(NamedTuple):
    """A repository of the hub.

    ``choice`` is a file of the repository or a quantization type (``Q4_K_M``), None for the usual.
    """

    repo: str
    choice: str | None = None
    revision: str = "main"

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repo}{revision}" + (f":{self.choice}" if self.choice else "")


class PathReference(NamedTuple):
    """A file or folder that exists."""

    path: Path


class DemoReference:
    """The checkpoint that comes with the package."""


Reference = HubReference | PathReference | DemoReference


def read_reference(model: str, *, base_dir: Path | None = None) -> Reference:
    """Tell what ``model`` names; a relative path is relative to ``base_dir`` or the working folder.

    An existing path wins over a hub id of the same spelling. Raises ModelMissing for a path that
    does not exist, DownloadFailed for a malformed ``hf://`` reference.
    """
    if model == DEMO:
        return DemoReference()
    for prefix in _HUB_PREFIXES:
        if model.startswith(prefix):
            return read_hub_reference(model)
    if not model.strip():
        raise ModelMissing(model, "give a .gguf file, a checkpoint folder, a hub id or 'demo'")
    path = (base_dir or Path()) / os.path.expanduser(model)
    if _exists(path):
        return PathReference(path)
    match = _HUB_ID.fullmatch(model)
    if match is None or _means_a_path(model, path):
        raise ModelMissing(model, _missing_hint(model, path, match is not None), path=path)
    return _hub_reference(match)


def read_hub_reference(model: str) -> HubReference:
    """Read ``org/name[@revision][:FILE_OR_QUANTIZATION]``, with or without ``hf://`` or ``hub:``.

    ``hf://org/name/folder/file.gguf`` names a file as well. Raises DownloadFailed.
    """
    text = model
    for prefix in _HUB_PREFIXES:
        text = text.removeprefix(prefix)
    match = _HUB_ID.fullmatch(text)
    if match is None:
        parts = text.split("/", 2)
        match = _HUB_ID.fullmatch("/".join(parts[:2])) if len(parts) == 3 else None
        if match is None or match["choice"] or not parts[2]:
            raise DownloadFailed(
                model, "a hub id is org/name, org/name:Q4_K_M or org/name:file.gguf"
            )
        return HubReference(match["repo"], parts[2], match["revision"] or "main")
    return _hub_reference(match)


def _hub_reference(match: re.Match[str]) -> HubReference:
    return HubReference(match["repo"], match["choice"], match["revision"] or "main")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long for the system, or with a null character
        return False


def _means_a_path(model: str, path: Path) -> bool:
    """Whether a string that could be a hub id was meant as a path."""
    if ":" not in model and model.lower().endswith(_FILE_ENDINGS):
        return True
    # "models/tiny" beside an existing folder "models" is a path with a typing error.
    return _exists(path.parent)


def _missing_hint(model: str, path: Path, could_be_hub_id: bool) -> str:
    missing = "the path does not exist" if str(path) == model else f"{path} does not exist"
    if could_be_hub_id:
        return f"{missing} (write hf://{model} if you mean a repository of the hub)"
    if "/" in model or "\\" in model or model.lower().endswith(_FILE_ENDINGS):
        return missing
    return (
        f"{missing}, and a hub id has the form org/name; "
        "give a .gguf file, a checkpoint folder, a hub id or 'demo'"
    )
