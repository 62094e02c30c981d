"""How the plugin is found, and what it says where Ray is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from mofa_gguf_ray.settings import ClusterOptions

from mofa_gguf.contract import ConfigError
from mofa_gguf.host import LLMConfig, ProviderRegistry

README = Path(__file__).resolve().parent.parent / "README.md"


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_kind_is_found_through_the_entry_point() -> None:
    registry = ProviderRegistry().discover()
    assert registry.problems == ()
    (entry,) = [entry for entry in registry.kinds() if entry.kind == "gguf-ray"]
    assert entry.distribution == "mofa-gguf-ray"
    options = {"model": "demo", "replicas": 2}
    provider = registry.create(LLMConfig(provider="gguf-ray", extra=options))
    assert (provider.name(), provider.default_model()) == ("gguf-ray", "demo")
    with pytest.raises(ConfigError, match="did you mean 'replicas'"):
        registry.create(LLMConfig(provider="gguf-ray", extra={**options, "replica": 2}))


def test_finding_the_plugin_loads_neither_ray_nor_llama_cpp() -> None:
    said = run(
        "import sys\nfrom mofa_gguf.host import ProviderRegistry\nProviderRegistry().discover()\n"
        "print(sorted({'ray', 'llama_cpp', 'numpy'} & set(sys.modules)))"
    )
    assert said.strip() == "[]"


def test_without_ray_the_package_to_install_is_named() -> None:
    said = run(
        "import sys\nsys.modules['ray'] = None\n"
        "from mofa_gguf.contract import ProviderNotSupported\n"
        "from mofa_gguf.host import LLMConfig, ProviderRegistry\n"
        "config = LLMConfig(provider='gguf-ray', extra={'model': 'demo'})\n"
        "try:\n    ProviderRegistry().discover().create(config)\n"
        "except ProviderNotSupported as error:\n    print(error)"
    )
    assert "pip install 'ray[serve]'" in said
    assert said.count("\n") == 1


def test_the_readme_tells_of_every_option_and_of_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", README.read_text("utf-8"), flags=re.M)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert told == set(ClusterOptions.model_fields)
