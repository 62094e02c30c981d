"""The plugin of this package: the kind "gguf", found without loading what runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mofa_gguf.contract import ConfigError
from mofa_gguf.host import LLMConfig, ProviderRegistry, load_provider


@pytest.mark.parametrize("kind", ["gguf", "llama-cpp", "gguf-local"])
def test_the_kind_and_its_aliases_make_a_gguf_provider(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "mofa.toml"
    file.write_text(f'[providers.a]\nprovider = "{kind}"\nmodel = "./m.gguf"\nn_ctx = 64\n')
    provider = load_provider(file)
    assert provider.name() == "gguf"
    config = provider.config  # type: ignore[attr-defined]
    assert (Path(config.model), config.n_ctx) == (tmp_path / "m.gguf", 64)


def test_an_unknown_option_is_refused_by_name_with_a_close_one() -> None:
    registry = ProviderRegistry().discover()
    with pytest.raises(ConfigError, match="did you mean 'n_ctx'") as caught:
        registry.create(LLMConfig.from_dict({"provider": "gguf", "model": "m", "nctx": 64}))
    assert caught.value.field == "nctx"


def test_local_is_not_an_alias_because_in_mofa_it_means_an_http_endpoint() -> None:
    names = {n for e in ProviderRegistry().discover().kinds() for n in (e.kind, *e.aliases)}
    assert "local" not in names


def test_discovering_the_plugin_loads_no_heavy_package() -> None:
    code = (
        "import sys; from mofa_gguf.host import ProviderRegistry; "
        "r = ProviderRegistry().discover(); assert r.kinds(), r.problems; "
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"llama_cpp", "numpy", "gguf", "tokenizers", "huggingface_hub", "rich"}
    assert not heavy & set(done.stdout.split())
