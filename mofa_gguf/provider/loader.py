"""How a pool's models are found, measured and loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from mofa_gguf.provider.footprint import Footprint, footprint, share_of
from mofa_gguf.provider.loaded import LoadedModel, find_draft, find_file
from mofa_gguf.settings import GGUFConfig
from mofa_gguf.store import ResolvedModel, verdict_folder

Check = Callable[[], None]
"""To be called often during long work: raises EngineClosed when the pool is closed."""


@dataclass(frozen=True)
class Found:
    """A model's file, and what it will take."""

    resolved: ResolvedModel
    footprint: Footprint


class Loader(Protocol):
    """How models are found and loaded; both block."""

    def find(self, config: GGUFConfig, check: Check) -> ResolvedModel:
        """The model's file, converted or downloaded if need be."""

    def measure(
        self, config: GGUFConfig, resolved: ResolvedModel, *, budget_bytes: int, n_models: int
    ) -> Footprint:
        """What the model will take, and the options to load it with."""

    def load(self, config: GGUFConfig, found: Found, check: Check) -> LoadedModel:
        """The model in memory."""


class FileLoader:
    """Loads what the configuration names."""

    def find(self, config: GGUFConfig, check: Check) -> ResolvedModel:
        """As :func:`find_file`; the draft model's file is made ready, too."""
        find_draft(config, check=check)
        return find_file(config, check=check)

    def measure(
        self, config: GGUFConfig, resolved: ResolvedModel, *, budget_bytes: int, n_models: int
    ) -> Footprint:
        """An "auto" context is made to leave room for the other models, if there are any."""
        verdicts = str(verdict_folder(config.cache_dir))
        draft = find_draft(config)
        options = replace(
            config.engine_options(),
            verdicts=verdicts,
            draft_model=str(draft.path) if draft is not None else None,
        )
        alone = footprint(resolved.path, options)
        if options.n_ctx != "auto" or (n_models == 1 and config.memory_budget == "auto"):
            return alone
        share = share_of(budget_bytes, n_models, alone.n_weight_bytes)
        fitted = footprint(resolved.path, options, memory_bytes=share)
        return footprint(resolved.path, fitted.options)

    def load(self, config: GGUFConfig, found: Found, check: Check) -> LoadedModel:
        """As :meth:`LoadedModel.load`."""
        return LoadedModel.load(config, found.resolved, found.footprint.options, check=check)
