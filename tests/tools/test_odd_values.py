"""The other values that options are tried with are others, and whole."""

from __future__ import annotations

from typing import Any

from tools.odd_values import changes

CONFIG: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 32,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
    "sliding_window": None,
}


def test_every_change_sets_something_else() -> None:
    found = dict(changes(CONFIG))
    assert len(found) == len(list(changes(CONFIG)))
    for name, values in found.items():
        assert any(CONFIG.get(key, name) != value for key, value in values.items()), name


def test_sizes_and_what_nothing_depends_on_stay() -> None:
    changed = {key for values in dict(changes(CONFIG)).values() for key in values}
    assert changed == set(CONFIG) - {"attention_dropout", "hidden_size", "num_attention_heads"}


def test_the_factors_of_longrope_fit_the_rotated_part_of_a_head() -> None:
    values = dict(changes(CONFIG))["rope-longrope-all"]["rope_parameters"]
    assert values["partial_rotary_factor"] == 0.5
    assert len(values["long_factor"]) == len(values["short_factor"]) == 4


def test_each_kind_of_layer_gets_its_rope_by_itself() -> None:
    one = {"rope_type": "default", "rope_theta": 1e4}
    both = {"full_attention": one, "sliding_attention": one}
    found = dict(changes({**CONFIG, "rope_parameters": both}))
    values = found["rope-yarn-full_attention"]["rope_parameters"]
    assert values["sliding_attention"] == one
    assert values["full_attention"]["rope_type"] == "yarn"
