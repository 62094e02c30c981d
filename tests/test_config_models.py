"""Several models in one configuration, by their tables alone."""

from __future__ import annotations

from typing import Any

import pytest

from mofa_gguf import ConfigError
from mofa_gguf.config_models import check_tables, with_tables

TABLES: dict[str, dict[str, Any]] = {"a": {"model": "a.gguf"}, "b": {"model": "b.gguf", "n_ctx": 5}}


def test_text_stands_for_a_table_and_the_first_is_the_default() -> None:
    values = with_tables({"models": {"a": "a.gguf", "b": TABLES["b"]}, "n_ctx": 9})
    assert values == {"model": "a", "models": TABLES, "n_ctx": 9}


def test_a_default_that_is_given_stays() -> None:
    assert with_tables({"model": "b", "models": TABLES})["model"] == "b"


@pytest.mark.parametrize(
    "values", [{"model": "a.gguf"}, {"models": {}}, {"models": "a.gguf"}, None, ["a"]]
)
def test_what_has_no_tables_is_left_to_the_other_checks(values: object) -> None:
    assert with_tables(values) is values


@pytest.mark.parametrize("warm_up", [True, False, (), ("a", "b")])
def test_tables_that_agree_pass(warm_up: bool | tuple[str, ...]) -> None:
    check_tables(TABLES, default="a", warm_up=warm_up)


@pytest.mark.parametrize(
    ("tables", "options", "field", "says"),
    [
        ({"": {"model": "a.gguf"}}, {}, "models.", "has no name"),
        (
            {"a": {"model": "a.gguf", "memory_budget": "1G"}},
            {},
            "models.a",
            "memory_budget is an option of the provider",
        ),
        ({"a": {"n_ctx": 5}}, {}, "models.a.model", "'model' is missing"),
        (TABLES, {"default": "c"}, "model", "no such model among models; known are a, b"),
        (TABLES, {"warm_up": ("a", "c")}, "warm_up", "'c': there is no such model"),
    ],
)
def test_what_does_not_agree_is_named(
    tables: dict[str, dict[str, Any]], options: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_tables(tables, **{"default": "a", "warm_up": False, **options})
    assert caught.value.field == field
