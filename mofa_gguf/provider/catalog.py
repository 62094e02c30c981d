"""The models of one provider by name: which one a request means, and what each can do."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from mofa_gguf.contract import ModelNotFound
from mofa_gguf.provider.description import (
    NOTHING_KNOWN,
    Abilities,
    abilities_of,
    as_text,
    model_name,
    peek,
)
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.settings import GGUFConfig


class Catalog:
    """Names and abilities. ``loaded`` gives a model that is in memory, or None."""

    def __init__(self, config: GGUFConfig, loaded: Callable[[str], LoadedModel | None]) -> None:
        self.configs: dict[str, GGUFConfig] = config.each() or {model_name(config): config}
        self.default = config.model if config.models else next(iter(self.configs))
        self._loaded = loaded
        self._peeked: dict[str, Abilities] = {}
        # What a single model's config calls it is its name too.
        self._aliases = {} if config.models else {as_text(config.model): self.default}

    def names(self) -> list[str]:
        """What a request may call a model; the default's names first."""
        return list(dict.fromkeys([self.default, *self.configs, *self._aliases]))

    def chosen(self, model: str) -> str:
        """The model that a request means; the default where it says none. Raises ModelNotFound."""
        name = self._aliases.get(model, model) or self.default
        if name in self.configs:
            return name
        known = self.names()
        close = difflib.get_close_matches(model, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ModelNotFound(
            f"{model!r:.100} is not loaded here; {hint}this provider has {', '.join(known)}",
            model=model,
            known=known,
        )

    def for_embedding(self, model: str) -> str:
        """The model that an embedding request means.

        A name that is not known (MoFA's default is one of OpenAI's) means the first that is made
        for embedding, else the first that can.
        """
        name = self._aliases.get(model, model)
        if name in self.configs:
            return name
        if len(self.configs) == 1:
            return self.default
        able = [n for n in [self.default, *self.configs] if self.abilities(n).embedding]
        made_for_it = [n for n in able if not self.abilities(n).chat]
        return next(iter([*made_for_it, *able, self.default]))

    def abilities(self, name: str) -> Abilities:
        """What a model can be asked for, told from its file where it is not loaded."""
        model = self._loaded(name)
        if model is not None:
            return abilities_of(model)
        if name not in self._peeked:
            found = peek(self.configs[name])
            if found is NOTHING_KNOWN:  # it may be there later
                return found
            self._peeked[name] = found
        return self._peeked[name]

    def any_can(self, ability: Callable[[Abilities], bool]) -> bool:
        """Whether one of the models has an ability."""
        return any(ability(self.abilities(name)) for name in self.configs)
