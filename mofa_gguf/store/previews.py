"""What can be told of a checkpoint folder before it is converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckpointPreview:
    """What its GGUF file will have: chat templates by name, and the model's own key-values."""

    templates: Mapping[str, str]
    architecture: str
    metadata: Mapping[str, object]


def preview(folder: Path) -> CheckpointPreview:
    """Read the small files of a checkpoint folder and the headers of its shards.

    Raises ConversionError for what could not be converted either.
    """
    from mofa_gguf.convert.checkpoint import open_checkpoint
    from mofa_gguf.convert.families import family_of
    from mofa_gguf.convert.tokenizer.chat_templates import read_chat_templates

    with open_checkpoint(folder) as checkpoint:
        family = family_of(checkpoint)
        model = family.read()
        settings = checkpoint.optional_json("tokenizer_config.json")
        templates = read_chat_templates(folder, settings.values if settings is not None else {})
        values = {key: value.data for key, value in model.metadata.items()}
        return CheckpointPreview(templates, family.architecture, values)
