"""docs/operations.md: what it says of Ray. Its commands are run by test_two_hosts.py."""

from __future__ import annotations

import re
from pathlib import Path

from mofa_gguf_ray import RayConfig
from mofa_gguf_ray.deployment import _DRAIN_S, _LOOK_BACK_S

from mofa_gguf.host.config_files import read_table

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_the_pages_configuration_is_one(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    (table,) = re.findall(r"^```toml\n(# ray.toml\n.*?)^```", text, flags=re.M | re.S)
    file = tmp_path / "mofa.toml"
    file.write_text(table, encoding="utf-8")
    options = dict(read_table(file)["providers"]["cluster"])
    assert options.pop("provider") == "gguf-ray"
    config = RayConfig.from_options(options)
    assert config.cluster.replicas.max == 2
    for name in re.findall(r"`(lost_after_s|retries_on_loss|routing)\b", text):
        assert hasattr(config.cluster, name)


def test_what_the_page_says_of_bounds_is_so() -> None:
    text = " ".join(PAGE.read_text("utf-8").split())
    (bounds,) = re.findall(r"`replicas = \{ min = (\d), max = (\d) \}`", text)
    config = RayConfig(
        model="demo", replicas=dict(zip(("min", "max"), map(int, bounds), strict=True))
    )
    replicas = config.cluster.replicas
    assert not replicas.is_fixed
    assert f"`up_after_s` ({replicas.up_after_s:g} at first)" in text
    assert f"`down_after_s` ({replicas.down_after_s:g})" in text
    assert f"the average of up to {_LOOK_BACK_S[1]:g} seconds" in text
    assert _DRAIN_S == 300
    assert "for five minutes at most" in text
