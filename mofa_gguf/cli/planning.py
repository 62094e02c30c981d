"""Plans for models by their names, for the commands that show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mofa_gguf.engine.planning.load_plan import LoadPlan
    from mofa_gguf.settings import GGUFConfig


def plan_for(config: GGUFConfig) -> LoadPlan:
    """The plan for the model that ``config`` names, here and now.

    A checkpoint folder is converted first, as on its first use; nothing is downloaded. Raises what
    finding the model raises (StoreError, ConversionError), EngineError and ConfigError.
    """
    from dataclasses import replace

    from mofa_gguf.engine.files.header import read_header
    from mofa_gguf.engine.planning.fit import plan_load
    from mofa_gguf.store import resolve, verdict_folder

    found = resolve(
        config.model,
        cache_dir=config.cache_dir,
        quantization=config.quantization,
        offline=True,
    )
    verdicts = str(verdict_folder(config.cache_dir))
    options = replace(config.engine_options(), verdicts=verdicts)
    return plan_load(read_header(found.path), options)
