"""What README.md says of a model: licence, base models, tags, languages, author.

The front matter is the YAML of the Hugging Face hub
(https://huggingface.co/docs/hub/model-cards#model-card-metadata); the keys are GGUF's
``general.*`` (docs/gguf.md in ggml-org/ggml). A model converts as well without it, so what cannot
be read becomes a warning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mofa_gguf.convert.checkpoint import inside
from mofa_gguf.convert.errors import CheckpointError
from mofa_gguf.convert.metadata import Metadata

CARD = "README.md"
MAX_BYTES = 64 * 1024
"""More of a README.md is not read."""
_MAX_ITEMS, _MAX_TEXT = 64, 500
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*\r?$", re.M | re.S)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB = "https://huggingface.co/"

# general.* with the card's names for it; the first that says something counts.
_TEXTS: Mapping[str, tuple[str, ...]] = {
    "author": ("author", "model_author", "model_creator"),
    "organization": ("organization", "model_organization"),
    "description": ("description", "model_description"),
    "license": ("license",),
    "license.name": ("license_name",),
    "license.link": ("license_link",),
}
# Those whose values are gathered from all names.
_LISTS: Mapping[str, tuple[str, ...]] = {
    "tags": ("tags", "pipeline_tag"),
    "languages": ("languages", "language"),
}


class ModelCard(NamedTuple):
    """The card's part of the metadata, and what was wrong with it."""

    metadata: Metadata
    warnings: tuple[str, ...] = ()


def read_model_card(folder: Path) -> ModelCard:
    """Read the front matter of README.md; empty where there is none."""
    try:
        path = inside(folder, CARD)
        if not path.is_file():  # a pipe would be waited for without end
            return ModelCard(Metadata())
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", errors="replace")
    except (OSError, CheckpointError):
        return ModelCard(Metadata())
    match = _FRONT_MATTER.match(text)
    if match is None:
        return ModelCard(Metadata())
    import yaml  # a hundredth of a second that folders without a card do without

    try:
        # Not with libyaml, which ends the process where lists are nested deeply.
        values = yaml.safe_load(match[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        return ModelCard(Metadata(), (f"the front matter of {CARD} cannot be read ({problem})",))
    return ModelCard(_metadata(values) if isinstance(values, dict) else Metadata())


def _metadata(card: Mapping[object, object]) -> Metadata:
    metadata = Metadata()
    for key, names in _TEXTS.items():
        found = [text for name in names for text in _strings(card.get(name))]
        if found:
            # A card may list several licences.
            metadata.string(f"general.{key}", ", ".join(found) if key == "license" else found[0])
    for key, names in _LISTS.items():
        gathered = dict.fromkeys(text for name in names for text in _strings(card.get(name)))
        if gathered:
            metadata.strings(f"general.{key}", list(gathered))
    for key, name in (("base_model", "base_model"), ("dataset", "datasets")):
        _sources(metadata, key, _strings(card.get(name)))
    return metadata


def _sources(metadata: Metadata, key: str, ids: list[str]) -> None:
    """Hub ids (or other names) of what the model was made of."""
    if not ids:
        return
    metadata.uint32(f"general.{key}.count", len(ids))
    for i, name in enumerate(ids):
        organization, _, bare = name.rpartition("/")
        metadata.string(f"general.{key}.{i}.name", bare or name)
        if _HUB_ID.fullmatch(name):
            metadata.string(f"general.{key}.{i}.organization", organization)
            place = "" if key == "base_model" else "datasets/"
            metadata.string(f"general.{key}.{i}.repo_url", f"{_HUB}{place}{name}")


def _strings(value: object) -> list[str]:
    """A text, or the texts of a list, without what is empty or too long."""
    values = value[:_MAX_ITEMS] if isinstance(value, list) else [value]
    # YAML takes the language "no" for false.
    texts = ["no" if item is False else item for item in values]
    return [
        text.strip()
        for text in texts
        if isinstance(text, str) and 0 < len(text.strip()) < _MAX_TEXT
    ]
