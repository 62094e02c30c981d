"""Throw-away plugins: real distributions, installed into a folder on the path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from pathlib import Path
from textwrap import dedent

import pytest

InstallPlugin = Callable[..., Path]


@pytest.fixture
def install_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[InstallPlugin, None, None]:
    """Install a distribution with one module and one entry point in the group "mofa"."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def install(
        name: str,
        source: str,
        *,
        version: str = "1.0",
        entry: str | None = None,
        value: str | None = None,
    ) -> Path:
        module = name.replace("-", "_") + "_plugin"
        (folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
        info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(
            f"[mofa]\n{entry or name} = {value or module}\n", encoding="utf-8"
        )
        return folder

    yield install
    for module in set(sys.modules) - before:
        if module.endswith("_plugin"):
            del sys.modules[module]
