"""What a PEFT adapter's folder says of itself: adapter_config.json, checked.

Names and meanings: ``LoraConfig`` in huggingface/peft (src/peft/tuners/lora/config.py). What
llama.cpp cannot compute is refused by name; what only says how training went is passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mofa_gguf.convert.checkpoint import inside
from mofa_gguf.convert.config import Config, read_json_object
from mofa_gguf.convert.errors import CheckpointError, PickleRefused

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"

# Values that change what the adapter computes, and that a GGUF adapter has no room for.
_REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA scales whole matrices",
    "kasa_config": "KaSA adds a diagonal",
    "lora_bias": "it has biases",
    "alora_invocation_tokens": "it counts only after certain tokens (activated LoRA)",
    "arrow_config": "it routes between adapters",
    "trainable_token_indices": "it replaces rows of the embeddings",
    "layer_replication": "it repeats layers of the base model",
    "target_parameters": "it changes parameters that are no matrices of their own",
    "modules_to_save": "it replaces whole modules",
}
# Ways to begin that leave the base model's weights as they are. Others (pissa, olora, ...) change
# them, and without the changed ones the adapter means nothing.
_SOUND_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
_LITERAL = re.compile(r"\^?[\w.\\-]+\$?")


@dataclass(frozen=True)
class AdapterConfig:
    """How strong an adapter's matrices count."""

    path: Path
    alpha: float
    alpha_pattern: Mapping[str, float]
    """Other alphas, by the end of the modules' names."""
    is_rank_stabilized: bool
    base_model: str
    """What the adapter says it belongs to; may be empty."""

    def scale(self, module: str, rank: int) -> float:
        """The factor of ``B @ A`` for a module (arXiv:2106.09685; arXiv:2312.03732 for rsLoRA)."""
        alpha = self.alpha
        for name, value in self.alpha_pattern.items():
            if module == name or module.endswith(f".{name}"):
                alpha = value
                break
        return alpha / (math.sqrt(rank) if self.is_rank_stabilized else rank)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Read and check a folder's adapter_config.json.

    Raises CheckpointError: no such folder or file, another kind of adapter, or something that
    llama.cpp's LoRA cannot compute. PickleRefused where the weights are pickled.
    """
    if not folder.is_dir():
        raise CheckpointError(folder, "is no folder; give the one with adapter_config.json")
    path = inside(folder, CONFIG_NAME)
    if not path.exists():
        raise CheckpointError(folder, f"has no {CONFIG_NAME}, so it holds no adapter of PEFT")
    if not inside(folder, WEIGHTS_NAME).exists():
        if (folder / _PICKLED).exists():
            raise PickleRefused(folder)
        raise CheckpointError(folder, f"has no {WEIGHTS_NAME}; is the download complete?")
    config = Config(read_json_object(path), path)
    kind = config.string("peft_type", default="")
    if kind != "LORA":
        raise config.fail("peft_type", f"must be LORA for llama.cpp, not {kind!r:.40}")
    variants = [name for name in config.values if name.startswith("use_") and name != "use_rslora"]
    for name, why in {**dict.fromkeys(variants, "it is a variant of LoRA"), **_REFUSED}.items():
        if config.values.get(name):
            found = f" ({config.values[name]!r:.60})" if name == "modules_to_save" else ""
            raise config.fail(
                name,
                f"is set{found}: {why}, which a GGUF adapter cannot hold; merge the adapter into "
                "its base model (merge_and_unload) and convert the result",
            )
    if config.string("bias", default="none") != "none":
        raise config.fail("bias", "must be none: a GGUF adapter holds no biases")
    beginning = config.values.get("init_lora_weights")
    if not any(beginning is known or beginning == known for known in _SOUND_BEGINNINGS):
        raise config.fail(
            "init_lora_weights",
            f"is {beginning!r:.40}, which changed the base model's weights; save the adapter with "
            "path_initial_model_for_weight_conversion, or merge it",
        )
    return AdapterConfig(
        path,
        _alpha(config, "lora_alpha"),
        _patterns(config),
        config.boolean("use_rslora", default=False),
        config.string("base_model_name_or_path", default=""),
    )


def _alpha(config: Config, name: str) -> float:
    value = config.number(name, default=8.0 if name == "lora_alpha" else None, maximum=1e9)
    if value <= 0:
        raise config.fail(name, f"must be above 0, not {value:g}")
    return value


def _patterns(config: Config) -> Mapping[str, float]:
    section = config.section("alpha_pattern")
    if section is None:
        return {}
    alphas = {}
    for name in section.values:
        # PEFT takes them for regular expressions. Real ones are names; others could run for ever.
        if not _LITERAL.fullmatch(name):
            raise section.fail(f"{name!r:.60}", "is no module's name; patterns are not supported")
        literal = name.strip("^$").replace("\\.", ".")
        alphas[literal] = _alpha(section, name)
    return alphas
