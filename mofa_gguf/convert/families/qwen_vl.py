"""The text parts of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

llama.cpp: src/models/qwen2vl.cpp, src/models/qwen3vl.cpp. Their rope has sections for time, height
and width, which are the same for text. Of Qwen3-VL's, llama.cpp leaves those slowest frequencies
unrotated that no section counts (two of 64, of 2e-7 and less), and of Qwen2-VL's norms it does not
read the epsilon: the logits differ in the last digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.families.epsilons import outer_epsilon
from mofa_gguf.convert.families.experts import TRANSPOSED, transposed_experts
from mofa_gguf.convert.families.parts import LAYER
from mofa_gguf.convert.families.qwen2 import Qwen2
from mofa_gguf.convert.families.qwen3 import Qwen3
from mofa_gguf.convert.families.qwen_moe import Qwen3Moe
from mofa_gguf.convert.families.text_part import TextPart
from mofa_gguf.convert.metadata import Metadata


class Sectioned(Decoder):
    """A rope in sections."""

    default_sections: ClassVar[tuple[int, ...]]

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The language model's keys and the sections, four for llama.cpp."""
        super().hyperparameters(metadata, dimensions)
        settings = self.rope.settings
        half = dimensions["rotated"] // 2
        found = settings.values.get("mrope_section", list(self.default_sections))
        items = found if isinstance(found, list) else []
        sizes = [size for size in items if type(size) is int and size >= 0]
        if len(items) != 3 or len(sizes) != 3 or sum(sizes) != half:
            raise settings.fail("mrope_section", f"must be three sizes of {half} together")
        metadata.int32s(self.key("rope.dimension_sections"), [*sizes, 0])


@register("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")
class Qwen2Vl(Sectioned, TextPart, Qwen2):
    """Qwen 2 with the other rope. The first checkpoints keep the text's values beside the rest."""

    architecture = "qwen2vl"
    may_be_flat = True
    default_sections = (16, 24, 24)
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 32_768,
        "rope_theta": 1_000_000.0,
    }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys above; an epsilon so small that llama.cpp may do without it."""
        super().hyperparameters(metadata, dimensions)
        outer_epsilon(self)


class _Pictures(Sectioned, TextPart):
    """Room for what later layers see of a picture."""

    default_sections = (24, 20, 20)
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 128_000,
        "rope_theta": 5_000_000.0,
    }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys above, and how many layers get pictures: none of it changes text."""
        super().hyperparameters(metadata, dimensions)
        vision = self.checkpoint.config.section("vision_config")
        layers = [] if vision is None else vision.values.get("deepstack_visual_indexes", [])
        if not isinstance(layers, list) or len(layers) > dimensions["layers"]:
            raise self.checkpoint.config.fail(
                "vision_config.deepstack_visual_indexes", "must be a list of layers"
            )
        metadata.uint32(self.key("n_deepstack_layers"), len(layers))


@register("Qwen3VLForConditionalGeneration")
class Qwen3Vl(_Pictures, Qwen3):
    """Qwen 3 with the other rope."""

    architecture = "qwen3vl"
    defaults: ClassVar[Mapping[str, object]] = {**Qwen3.defaults, **_Pictures.defaults}


_EXPERTS = f"{LAYER}.mlp.experts"


@register("Qwen3VLMoeForConditionalGeneration")
class Qwen3VlMoe(_Pictures, Qwen3Moe):
    """Qwen 3 with experts and the other rope; published checkpoints hold transposed experts."""

    architecture = "qwen3vlmoe"
    defaults: ClassVar[Mapping[str, object]] = {
        **Qwen3Moe.defaults,
        **_Pictures.defaults,
        "moe_intermediate_size": 1408,
        "norm_topk_prob": True,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 16,
    }
    rules = (
        *Qwen3Moe.rules,
        *transposed_experts(f"{_EXPERTS}.gate_up_proj", f"{_EXPERTS}.down_proj"),
    )

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """How a layer's experts are stored: by the shape, as transformers tells it."""
        stored = self.shape_of(f"{_EXPERTS}.gate_up_proj".format(i=layer))
        published = stored is not None and stored[-1] == 2 * self.config.integer(*self.width_keys)
        return (TRANSPOSED,) if published else super().kinds(layer)
