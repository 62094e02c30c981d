"""The language model of a checkpoint that sees too: its configuration and tensors by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.families.decoder import Decoder

_REASON = "only the text part is converted"
_PREFIXES = ("model.language_model.", "language_model.model.", "model.text_model.")
_OTHER_PARTS = (
    "vision_tower.",
    "vision_model.",
    "multi_modal_projector.",
    "visual.",
    "image_newline",
    "audio_tower.",
    "embed_vision.",
    "embed_audio.",
    "connector.",
)


class TextPart(Decoder):
    """Put before a decoder among the bases of a class: that decoder, as part of a larger model."""

    skip: ClassVar[Mapping[str, str]] = {
        **Decoder.skip,
        **{f"{part}*": _REASON for part in _OTHER_PARTS},
    }

    may_be_flat: ClassVar[bool] = False
    """Whether config.json may keep the language model's values outside of text_config."""

    def __init__(self, checkpoint: Checkpoint, source_architecture: str) -> None:
        super().__init__(checkpoint, source_architecture)
        text = checkpoint.config.section("text_config")
        if text is None and self.may_be_flat:
            text = checkpoint.config
        if text is None:
            raise checkpoint.config.fail("text_config", "is missing")
        self.config = text.completed(self.defaults, self.renamed)
        # Whether the output matrix is tied is a matter of the whole model where it says so.
        tied = checkpoint.config.values.get("tie_word_embeddings")
        if tied is not None:
            self.config.values = {**self.config.values, "tie_word_embeddings": tied}
        self.warnings.append("the checkpoint sees images too; only its text part was converted")

    def canonical(self, name: str) -> str:
        """Names of the language model as if it stood alone, whichever version wrote them."""
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                return super().canonical("model." + name.removeprefix(prefix))
        if name.startswith("language_model.lm_head."):
            return name.removeprefix("language_model.")
        for part in _OTHER_PARTS:
            if name.startswith(f"model.{part}"):
                return name.removeprefix("model.")
        return name if name.startswith(_OTHER_PARTS) else super().canonical(name)
