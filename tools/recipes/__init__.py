"""Recipes for tiny checkpoints, one table by name; the other modules here hold the entries."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from recipes.dense import DENSE
from recipes.experts import EXPERTS
from recipes.first import FIRST
from recipes.further import FURTHER
from recipes.gemmas import GEMMAS
from recipes.hybrids import HYBRIDS
from recipes.mixtures import MIXTURES
from recipes.recipe import DENSE_NARROW, NARROW, Entry, Recipe, narrow

__all__ = ["RECIPES", "Recipe", "seed_of"]


def _recipes(entries: Mapping[str, Entry], common: dict[str, Any]) -> dict[str, Recipe]:
    return {
        name: narrow(model_class, stored={"dtype": "float16", **stored}, common=common, **config)
        for name, (model_class, config, stored) in entries.items()
    }


_SEEDED_BY_PLACE = {**FIRST, **_recipes(DENSE, DENSE_NARROW), **_recipes(EXPERTS, NARROW)}

RECIPES: dict[str, Recipe] = {
    **_SEEDED_BY_PLACE,
    **_recipes({**FURTHER, **GEMMAS}, DENSE_NARROW),
    **_recipes({**MIXTURES, **HYBRIDS}, NARROW),
}


def seed_of(name: str) -> int:
    """The place in the table for the first recipes; later ones depend on nothing but their name."""
    if name in _SEEDED_BY_PLACE:
        return list(_SEEDED_BY_PLACE).index(name)
    return zlib.crc32(name.encode())
