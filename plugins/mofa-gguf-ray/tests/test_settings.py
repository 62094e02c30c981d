"""The options: the model's own, and those of the replicas."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from mofa_gguf_ray import RayConfig
from mofa_gguf_ray.settings import ClusterOptions, ReplicaBounds

from mofa_gguf.contract import ConfigError


def test_options_go_to_the_model_or_to_the_replicas() -> None:
    config = RayConfig(model="demo", n_ctx=512, replicas=2, cpus=1, memory="2GiB")
    assert (config.gguf.model, config.gguf.n_ctx) == ("demo", 512)
    assert config.cluster.replicas == ReplicaBounds(min=2, max=2)
    assert (config.cluster.cpus, config.cluster.memory) == (1, 2 * 2**30)


def test_replicas_may_be_as_many_as_are_needed() -> None:
    config = RayConfig(model="demo", replicas={"min": 0, "max": 4})
    assert config.cluster.replicas == ReplicaBounds(min=0, max=4)


def test_no_option_is_both_the_models_and_the_clusters() -> None:
    from mofa_gguf import GGUFConfig

    assert not set(GGUFConfig.model_fields) & set(ClusterOptions.model_fields)


@pytest.mark.parametrize(
    ("options", "field", "says"),
    [
        ({"replica": 2}, "replica", "did you mean 'replicas'"),
        ({"n_ctxx": 2}, "n_ctxx", "did you mean 'n_ctx'"),
        ({"replicas": 0}, "replicas", "replicas = 0"),
        ({"replicas": {"min": 3, "max": 2}}, "replicas", "min (3) is more than max (2)"),
        ({"replicas": {"max": 2, "up_after_s": -1}}, "replicas", "greater than or equal to 0"),
        ({"replicas": "many"}, "replicas", "replicas = 'many'"),
        ({"memory": "lots"}, "memory", "a size is a number of bytes"),
        ({"routing": "random"}, "routing", "'prefix', 'power-of-two' or 'round-robin'"),
        ({"lost_after_s": 0.5}, "lost_after_s", "greater than or equal to 3"),
        ({"deployment": "a b"}, "deployment", "deployment = 'a b'"),
        ({"n_ctx": 0}, "n_ctx", "n_ctx = 0"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RayConfig(model="demo", **options)
    assert caught.value.field == field
    assert says in caught.value.message


def test_a_config_files_paths_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    options = {"default_model": "x", "model": "m.gguf", "replicas": 3, "max_retries": 2}
    config = RayConfig.from_options(options, tmp_path)
    assert config.gguf.model == str(tmp_path / "m.gguf")
    assert config.cluster.replicas.max == 3


def test_what_was_chosen_by_hand_does_not_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOFA_GGUF_MODEL", "another")
    monkeypatch.setenv("MOFA_GGUF_MODELS", '{"another": "x.gguf"}')
    options = {"model": "b", "models": {"b": "b.gguf"}, "replicas": 2}
    config = RayConfig.from_options(options, chosen=("model", "models"))
    assert (config.gguf.model, list(config.gguf.models)) == ("b", ["b"])


def test_paths_of_this_folder_are_absolute_since_replicas_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.gguf").touch()
    Path("a.gguf").touch()
    Path("demo").mkdir()
    here = RayConfig(model="m.gguf", lora=["a.gguf"], chat_template="{{ messages }}").gguf
    assert here.model == str(tmp_path / "m.gguf")
    assert str(here.lora[0].path) == str(tmp_path / "a.gguf")
    assert here.chat_template == "{{ messages }}"
    assert RayConfig(model="demo").gguf.model == "demo"
    assert RayConfig(model="org/name").gguf.model == "org/name"
    several = RayConfig(models={"a": "m.gguf", "b": "demo"}).gguf
    assert several.models["a"]["model"] == str(tmp_path / "m.gguf")
    assert several.model == "a"


def test_configurations_travel_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RayConfig(model="demo", n_ctx=512)
    sent = pickle.dumps(config.gguf)
    monkeypatch.setenv("MOFA_GGUF_N_CTX", "99")  # another machine's environment
    assert pickle.loads(sent).n_ctx == 512


def test_the_digest_is_for_what_the_replicas_are_made_from() -> None:
    one = RayConfig(model="demo", replicas=2)
    assert one.digest() == RayConfig(model="demo", replicas=2, keep=True).digest()
    assert one.digest() == RayConfig(model="demo", replicas=2, ray_address="a:1").digest()
    assert one.digest() != RayConfig(model="demo", replicas=3).digest()
    assert one.digest() != RayConfig(model="demo", replicas=2, n_ctx=7).digest()
