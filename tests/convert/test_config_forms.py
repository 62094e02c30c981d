"""config.json as transformers 4 and transformers 5 write it means the same, for every family."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.families import family_of, known
from tests.convert.makers import PARITY

FIXTURES = sorted(path for path in PARITY.iterdir() if path.is_dir())

# Class -> the names that transformers 4 wrote where 5 writes others.
_OLD_ROPE_NAMES = {"rope_type": "type"}
_MODERN_BERT = {"full": "global_rope_theta", "sliding": "local_rope_theta"}


def old_form(config: Mapping[str, Any]) -> dict[str, Any]:
    """rope_parameters taken apart, as transformers 4 had it: rope_theta beside rope_scaling."""
    values = {
        key: old_form(value) if key == "text_config" else value for key, value in config.items()
    }
    values.pop("dtype", None)
    values["torch_dtype"] = config.get("dtype", "float32")
    settings = values.pop("rope_parameters", None)
    if not isinstance(settings, Mapping):
        return values
    if values.get("model_type") == "modernbert":
        thetas = {f"{kind}_attention": old for kind, old in _MODERN_BERT.items()}
        return values | {old: settings[kind]["rope_theta"] for kind, old in thetas.items()}
    if "full_attention" in settings:  # Gemma 3 and OLMo 3
        values |= _old_rope(settings["full_attention"])
        local = settings["sliding_attention"]["rope_theta"]
        return values | {"rope_local_base_freq": local}
    return values | _old_rope(settings)


def _old_rope(settings: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(settings)
    found = {
        name: rest.pop(name) for name in ("rope_theta", "partial_rotary_factor") if name in rest
    }
    if rest.get("rope_type") == "default":
        del rest["rope_type"]
    scaling = {_OLD_ROPE_NAMES.get(name, name): value for name, value in rest.items()}
    if set(scaling) == {"mrope_section"}:
        scaling["type"] = "mrope"
    return found | {"rope_scaling": scaling or None}


def described(folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """Everything but the weights that a family makes of a checkpoint."""
    with open_checkpoint(folder) as checkpoint:
        model = family_of(checkpoint).read()
        keys = {key: value.data for key, value in model.metadata.items()}
        return keys, [(tensor.name, tensor.weights.shape) for tensor in model.tensors]


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)
def test_both_forms_give_the_same_keys_and_tensors(fixture: Path, tmp_path: Path) -> None:
    config = json.loads((fixture / "config.json").read_text())
    folder = tmp_path / fixture.name
    shutil.copytree(fixture, folder)
    found = described(fixture)
    # The fixtures are of transformers 5, but for those that were written in the older form.
    is_new = "rope_parameters" in json.dumps(config)
    (folder / "config.json").write_text(json.dumps(old_form(config)))
    assert described(folder) == found
    if not is_new:
        return
    assert "rope_parameters" not in (folder / "config.json").read_text().split('"vision_config"')[0]


def test_values_that_are_left_out_are_those_that_transformers_assumes(tmp_path: Path) -> None:
    # transformers 4 wrote only what differs from the class's defaults.
    folder = tmp_path / "qwen3"
    shutil.copytree(PARITY / "qwen3", folder)
    config = json.loads((folder / "config.json").read_text())
    unchanged = {"hidden_act": "silu", "attention_bias": False, "rms_norm_eps": 1e-6}
    assert unchanged.items() <= config.items()
    short = {key: value for key, value in config.items() if key not in unchanged}
    (folder / "config.json").write_text(json.dumps(short))
    assert described(folder) == described(PARITY / "qwen3")


def test_every_family_has_a_fixture_or_shares_one() -> None:
    seen = set()
    for fixture in FIXTURES:
        config = json.loads((fixture / "config.json").read_text())
        seen.update(known()[name] for name in config["architectures"])
    # A class made of one with a fixture has its tests where its difference is.
    without = {name for name, family in known().items() if not issubclass(family, tuple(seen))}
    assert without == set()
