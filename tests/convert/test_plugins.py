"""Other distributions bring model families, and broken ones cost nobody anything."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from mofa_gguf.convert import UnsupportedArchitecture, architectures, convert
from mofa_gguf.convert.families import known
from mofa_gguf.convert.plugins import _Hooks, discover, supported
from mofa_gguf.engine.models.logits import Probe
from mofa_gguf.host import ProviderRegistry, hookspecs
from tests.cli.conftest import install_plugin
from tests.convert.makers import CONFIG, llama_tensors, write_checkpoint

Install = Callable[[str, str], None]

# A Llama whose tensors and whose width are called otherwise.
ACME = """
from dataclasses import replace

from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.plugins import hookimpl

SPELLING = {
    "model.layers.{i}.self_attn.": "acme.blocks.{i}.mix.",
    "model.layers.{i}.mlp.": "acme.blocks.{i}.feed.",
    "model.layers.{i}.": "acme.blocks.{i}.",
    "model.": "acme.",
}


def respelled(rule):
    for ours, theirs in SPELLING.items():
        if rule.source.startswith(ours):
            return replace(rule, source=theirs + rule.source.removeprefix(ours))
    return rule


class Acme(Llama):
    embedding = "acme.embed_tokens.weight"
    renamed = {"d_model": "hidden_size"}
    rules = tuple(respelled(rule) for rule in Llama.rules)


@hookimpl
def mofa_register_families(registry):
    registry.register(Acme, "AcmeForCausalLM", "AcmeV2ForCausalLM")
"""
HOOK = """
from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.plugins import hookimpl

@hookimpl
def mofa_register_families(registry):
"""
BROKEN = {
    "raises": HOOK + "    raise RuntimeError('no luck')",
    "exits": "raise SystemExit(3)",
    "cannot_be_imported": "import a_module_that_nobody_has",
    "takes_ours": HOOK
    + "    registry.register(Llama, 'BrandNew')\n    registry.register(Llama, 'GPT2LMHeadModel')",
    "brings_no_family": HOOK + "    registry.register(dict, 'DictForCausalLM')",
    "brings_half_a_family": HOOK
    + "    from mofa_gguf.convert.families.base import Family\n"
    + "    registry.register(type('Half', (Family,), {'rules': ()}), 'HalfForCausalLM')",
    "names_no_class": HOOK + "    registry.register(Llama)",
    "wrong_arguments": HOOK.replace("(registry)", "(families)") + "    pass",
}


def acme_checkpoint(folder: Path) -> Path:
    spelling = (
        ("self_attn", "mix"),
        ("mlp", "feed"),
        ("model.layers", "acme.blocks"),
        ("model.", "acme."),
    )
    tensors = {}
    for name, values in llama_tensors(CONFIG).items():
        for ours, theirs in spelling:
            name = name.replace(ours, theirs)
        tensors[name] = values
    return write_checkpoint(
        folder, tensors=tensors, architectures=["AcmeForCausalLM"], hidden_size=None, d_model=64
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a plugin with this source on the path, until the test ends."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))
    installed: list[str] = []

    def install(module: str, source: str) -> None:
        install_plugin(site, module=module, source=dedent(source))
        installed.append(module)

    yield install
    for module in installed:
        sys.modules.pop(module, None)


def test_a_checkpoint_of_a_plugins_class_computes_what_its_weights_say(
    install: Install, tmp_path: Path
) -> None:
    install("acme_mofa", ACME)
    theirs = convert(acme_checkpoint(tmp_path / "acme"), tmp_path / "a.gguf", "F32", threads=1)
    ours = convert(write_checkpoint(tmp_path / "llama"), tmp_path / "b.gguf", "F32", threads=1)
    assert (theirs.family, theirs.architecture) == ("AcmeForCausalLM", "llama")
    assert all(check.passed for check in theirs.checks)
    logits = []
    for report in (theirs, ours):
        with Probe(report.output, n_threads=1) as probe:
            logits.append(probe.logits([5, 6, 7, 8]))
    np.testing.assert_array_equal(*logits)


def test_families_are_listed_with_where_they_come_from(install: Install) -> None:
    install("acme_mofa", ACME)
    entries, problems = supported()
    assert problems == ()
    sources = {entry.name: (entry.architecture, entry.source) for entry in entries}
    assert sources["AcmeV2ForCausalLM"] == ("llama", "acme-mofa 1.2")
    assert sources["LlamaForCausalLM"] == ("llama", "mofa-gguf")
    assert list(sources) == sorted(sources)
    assert architectures()["AcmeForCausalLM"] == "llama"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_breaks_nothing_and_is_named(
    kind: str, install: Install, tmp_path: Path
) -> None:
    install(f"broken_{kind}", BROKEN[kind])
    install("acme_mofa", ACME)
    found = discover()
    assert set(found.families) == {"AcmeForCausalLM", "AcmeV2ForCausalLM"}
    assert [f"broken-{kind.replace('_', '-')} 1.2" in problem for problem in found.problems] == [
        True
    ]
    convert(write_checkpoint(tmp_path / "llama"), tmp_path / "x.gguf", "Q8_0", verify=False)
    unknown = write_checkpoint(tmp_path / "unknown", architectures=["DictForCausalLM"])
    with pytest.raises(UnsupportedArchitecture, match=f"failed to load: .*{kind}") as caught:
        convert(unknown, tmp_path / "y.gguf")
    assert "AcmeForCausalLM" in caught.value.known


def test_of_two_plugins_with_one_class_the_first_by_name_has_it(install: Install) -> None:
    install("acme_mofa", ACME)
    install("zeta_mofa", ACME)
    found = discover()
    assert set(found.sources.values()) == {"acme-mofa 1.2"}
    assert len(found.problems) == 1
    assert "by acme-mofa 1.2" in found.problems[0]


def test_no_plugin_is_asked_for_a_class_of_ours(install: Install, tmp_path: Path) -> None:
    install("loud_mofa", "raise RuntimeError('loaded')")
    convert(write_checkpoint(tmp_path / "llama"), tmp_path / "x.gguf", "Q8_0", verify=False)
    assert "loud_mofa" not in sys.modules
    assert "LlamaForCausalLM" in known()


def test_a_plugin_may_bring_families_only_or_providers_too(install: Install) -> None:
    before = {entry.kind for entry in ProviderRegistry().discover().kinds()}
    install("acme_mofa", ACME)
    registry = ProviderRegistry().discover()
    assert registry.problems == ()
    assert {entry.kind for entry in registry.kinds()} == before


def test_the_converter_and_the_host_name_the_same_hook() -> None:
    ours = inspect.signature(_Hooks.mofa_register_families)
    hosts = inspect.signature(hookspecs.mofa_register_families)
    assert [*ours.parameters][1:] == [*hosts.parameters]
