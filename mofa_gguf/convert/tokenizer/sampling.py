"""generation_config.json -> ``general.sampling.*``: how the model wants to be sampled.

Key names: src/llama-arch.cpp. llama.cpp applies them where its user says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata

# transformers' name (GenerationConfig) -> the GGUF key's last part.
_FLOATS = {
    "temperature": "temp",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}
_INTEGERS = {"top_k": "top_k"}
_LIMIT = 1e6


def read_sampling_defaults(config: Mapping[str, object], path: Path) -> Metadata:
    """Sampling keys of a generation_config.json; ``do_sample: false`` becomes temperature 0.

    Raises TokenizerError when a value is no sensible number.
    """
    data = Metadata()
    for name, key in _INTEGERS.items():
        if (value := _number(config, name, path)) is not None:
            data.int32(f"general.sampling.{key}", int(value))
    for name, key in _FLOATS.items():
        if (value := _number(config, name, path)) is not None:
            data.float32(f"general.sampling.{key}", value)
    if config.get("do_sample") is False:
        data.float32("general.sampling.temp", 0.0)
    return data


def _number(config: Mapping[str, object], name: str, path: Path) -> float | None:
    value = config.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenizerError(f"{path}: {name} is {value!r:.40}, which is no number")
    if not 0 <= value <= _LIMIT:
        raise TokenizerError(f"{path}: {name} is {value!r:.40}, which is out of range")
    return float(value)
