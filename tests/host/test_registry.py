"""The provider registry: kinds, aliases, collisions, plugins sound and broken."""

from __future__ import annotations

import logging
import pickle
import types
from pathlib import Path

import pytest
from pydantic import BaseModel

from mofa_gguf.contract import ConfigError, LLMProvider, ProviderNotSupported
from mofa_gguf.host import (
    KindTaken,
    LLMConfig,
    ProviderEntry,
    ProviderRegistry,
    hookimpl,
    load_provider,
)
from mofa_gguf.host.testing import ScriptedProvider

from .conftest import InstallPlugin

GOOD = """
    from mofa_gguf.host import hookimpl
    from mofa_gguf.host.testing import ScriptedProvider

    @hookimpl
    def mofa_register_providers(registry):
        registry.register("parrot", make, aliases=["polly"], description="Says it again")

    def make(config):
        return ScriptedProvider(model=config.extra.get("model", "parrot"))
"""


def make_scripted(config: LLMConfig) -> LLMProvider:
    return ScriptedProvider(model=str(config.extra.get("model", "scripted")))


def kinds_of(registry: ProviderRegistry) -> list[str]:
    return [entry.kind for entry in registry.kinds()]


class TestRegistering:
    def test_a_new_registry_is_empty(self) -> None:
        registry = ProviderRegistry()
        assert registry.kinds() == []
        assert registry.problems == ()

    def test_a_kind_is_created_by_name_and_by_alias(self) -> None:
        registry = ProviderRegistry()
        registry.register("parrot", make_scripted, aliases=("polly",), description="d")
        for name in ("parrot", "polly"):
            provider = registry.create(LLMConfig.from_dict({"provider": name, "model": "m"}))
            assert provider.default_model() == "m"
        assert registry.kinds() == [ProviderEntry("parrot", ("polly",), "d")]

    def test_kinds_are_listed_by_name(self) -> None:
        registry = ProviderRegistry()
        for kind in ("b", "c", "a"):
            registry.register(kind, make_scripted)
        assert kinds_of(registry) == ["a", "b", "c"]

    def test_an_alias_equal_to_its_kind_is_harmless(self) -> None:
        registry = ProviderRegistry()
        registry.register("a", make_scripted, aliases=["a", "b", "b"])
        assert registry.kinds()[0].aliases == ("b",)

    @pytest.mark.parametrize(
        ("kind", "aliases", "taken"),
        [("a", (), "a"), ("x", ("a",), "a"), ("b", (), "b"), ("x", ("y", "b"), "b")],
    )
    def test_a_taken_name_is_refused_naming_both_sources_and_nothing_is_registered(
        self, kind: str, aliases: tuple[str, ...], taken: str
    ) -> None:
        registry = ProviderRegistry()
        registry.register("a", make_scripted, aliases=["b"], source="the first")
        with pytest.raises(KindTaken) as caught:
            registry.register(kind, make_scripted, aliases=aliases, source="the second")
        error = caught.value
        assert (error.name, error.holder, error.claimant) == (taken, "the first", "the second")
        assert error.message == (
            f"the provider kind {taken!r} of the second is taken by the first; "
            "uninstall one of them, or register under another name"
        )
        assert kinds_of(registry) == ["a"]
        with pytest.raises(ProviderNotSupported):
            registry.create(LLMConfig(provider="y"))

    def test_a_collision_error_survives_pickling(self) -> None:
        error = pickle.loads(pickle.dumps(KindTaken("n", holder="h", claimant="c")))
        assert (error.name, error.holder, error.claimant) == ("n", "h", "c")

    @pytest.mark.parametrize("name", ["", "  ", None])
    def test_a_kind_needs_a_name(self, name: str) -> None:
        with pytest.raises(ConfigError, match="must have a name"):
            ProviderRegistry().register(name, make_scripted)

    def test_a_factory_must_be_callable(self) -> None:
        with pytest.raises(ConfigError, match="factory of the provider kind 'a' is a str"):
            ProviderRegistry().register("a", "make")  # type: ignore[arg-type]


class TestCreating:
    def test_an_unknown_kind_is_answered_with_the_known_ones(self) -> None:
        registry = ProviderRegistry()
        registry.register("gguf", make_scripted, aliases=["llama-cpp"])
        registry.register("parrot", make_scripted)
        with pytest.raises(ProviderNotSupported) as caught:
            registry.create(LLMConfig(provider="ggfu"))
        assert caught.value.message == (
            "there is no provider kind 'ggfu' (did you mean 'gguf'?); known kinds: gguf and parrot"
        )
        assert caught.value.known == ("gguf", "parrot")
        assert caught.value.provider == "ggfu"

    def test_an_empty_registry_says_that_it_knows_none(self) -> None:
        with pytest.raises(ProviderNotSupported, match="known kinds: none"):
            ProviderRegistry().create(LLMConfig(provider="gguf"))

    def test_what_a_factory_refuses_by_validation_is_a_config_error_with_the_field(self) -> None:
        class Options(BaseModel, extra="forbid"):
            n_ctx: int

        def make(config: LLMConfig) -> LLMProvider:
            Options.model_validate(config.options())
            return ScriptedProvider()

        registry = ProviderRegistry()
        registry.register("strict", make)
        with pytest.raises(ConfigError, match="provider 'strict': n_ctx: ") as caught:
            registry.create(LLMConfig.from_dict({"provider": "strict", "n_ctx": "many"}))
        assert caught.value.field == "n_ctx"

    def test_a_factory_whose_backend_is_not_installed_says_so(self) -> None:
        def make(config: LLMConfig) -> LLMProvider:
            import a_backend_that_is_not_there  # type: ignore[import-not-found]  # noqa: F401

            return ScriptedProvider()

        registry = ProviderRegistry()
        registry.register("remote", make, source="the plugin 'remote' of acme 2.0")
        with pytest.raises(ProviderNotSupported) as caught:
            registry.create(LLMConfig(provider="remote"))
        assert "'remote' of the plugin 'remote' of acme 2.0 cannot be used" in str(caught.value)
        assert "a_backend_that_is_not_there" in str(caught.value)

    def test_a_factory_that_returns_no_provider_is_named(self) -> None:
        registry = ProviderRegistry()
        registry.register("odd", lambda config: None, source="acme")  # type: ignore[arg-type,return-value]
        with pytest.raises(ProviderNotSupported, match="'odd' of acme returned a NoneType"):
            registry.create(LLMConfig(provider="odd"))

    def test_contract_errors_of_a_factory_pass_through(self) -> None:
        def make(config: LLMConfig) -> LLMProvider:
            raise ConfigError("no", field="model")

        registry = ProviderRegistry()
        registry.register("a", make)
        with pytest.raises(ConfigError, match="no"):
            registry.create(LLMConfig(provider="a"))


class TestDiscovery:
    def test_this_packages_own_plugin_is_found_without_loading_llama_cpp(self) -> None:
        registry = ProviderRegistry().discover()
        entry = next(entry for entry in registry.kinds() if entry.kind == "gguf")
        assert entry.aliases == ("llama-cpp", "gguf-local")
        assert entry.distribution == "mofa-gguf"
        assert entry.version

    def test_an_installed_plugin_is_listed_with_its_distribution_and_can_be_chosen(
        self, install_plugin: InstallPlugin
    ) -> None:
        install_plugin("acme-parrot", GOOD, version="2.1")
        registry = ProviderRegistry().discover()
        assert registry.problems == ()
        assert (
            ProviderEntry("parrot", ("polly",), "Says it again", "acme-parrot", "2.1")
            in registry.kinds()
        )
        provider = registry.create(LLMConfig.from_dict({"provider": "polly", "model": "m"}))
        assert provider.default_model() == "m"

    async def test_a_config_file_chooses_the_second_plugin(
        self, install_plugin: InstallPlugin, tmp_path: Path
    ) -> None:
        install_plugin("acme-parrot", GOOD)
        file = tmp_path / "mofa.toml"
        file.write_text('[providers.bird]\nprovider = "parrot"\nmodel = "grey"\n')
        assert load_provider(file).default_model() == "grey"

    def test_a_plugin_object_named_in_a_module_works_as_a_module_does(
        self, install_plugin: InstallPlugin
    ) -> None:
        source = """
            from mofa_gguf.host import hookimpl
            from mofa_gguf.host.testing import ScriptedProvider

            class Plugin:
                @hookimpl
                def mofa_register_providers(self, registry):
                    registry.register("object", lambda config: ScriptedProvider())

            plugin = Plugin()
        """
        install_plugin("acme-object", source, value="acme_object_plugin:plugin")
        registry = ProviderRegistry().discover()
        assert "object" in kinds_of(registry)

    @pytest.mark.parametrize(
        ("source", "value", "reason"),
        [
            ("import a_module_nobody_has", None, "cannot be imported: No module named"),
            ("x = 1", "a_module_nobody_has", "a_module_nobody_has cannot be imported"),
            ("x = 1", "broken_plugin:plugin", "broken_plugin:plugin cannot be loaded"),
            ("raise RuntimeError('bad\\nday')", None, "it raised RuntimeError: bad day"),
            ("import sys; sys.exit(3)", None, "it raised SystemExit: 3"),
            ("def f(: pass", None, "it raised SyntaxError"),
            ("x = 1", None, "it implements no MoFA hook; mark mofa_register_providers"),
            (
                """
                def mofa_register_providers(registry):
                    registry.register("unmarked", None)
                """,
                None,
                "it implements no MoFA hook",
            ),
            (
                """
                from mofa_gguf.host import hookimpl
                @hookimpl
                def mofa_register_providers(registry, surprise): ...
                """,
                None,
                "it implements a hook wrongly",
            ),
            (
                """
                from mofa_gguf.host import hookimpl
                @hookimpl
                def mofa_register_provider(registry): ...
                """,
                None,
                "it implements a hook wrongly: unknown hook 'mofa_register_provider'",
            ),
            (
                """
                from mofa_gguf.host import hookimpl
                @hookimpl
                def mofa_register_providers(registry):
                    registry.register("half", lambda config: None)
                    1 / 0
                """,
                None,
                "it raised ZeroDivisionError: division by zero",
            ),
            (
                """
                from mofa_gguf.host import hookimpl
                @hookimpl
                def mofa_register_providers(registry):
                    registry.register("half", lambda config: None)
                    registry.register("llama-cpp", lambda config: None)
                """,
                None,
                "the provider kind 'llama-cpp' of the plugin 'broken' of broken 1.0 is taken by "
                "the plugin 'gguf' of mofa-gguf",
            ),
        ],
    )
    def test_a_broken_plugin_is_recorded_with_its_reason_and_hides_no_other(
        self,
        install_plugin: InstallPlugin,
        caplog: pytest.LogCaptureFixture,
        source: str,
        value: str | None,
        reason: str,
    ) -> None:
        install_plugin("broken", source, value=value)
        install_plugin("acme-parrot", GOOD)
        with caplog.at_level(logging.WARNING, logger="mofa_gguf.host.registry"):
            registry = ProviderRegistry().discover()
        assert {"gguf", "parrot"} <= set(kinds_of(registry))
        assert "half" not in kinds_of(registry)
        [problem] = registry.problems
        assert (problem.plugin, problem.distribution, problem.version) == ("broken",) * 2 + ("1.0",)
        assert reason in problem.reason
        assert "\n" not in problem.reason
        assert str(problem).startswith("the plugin 'broken' of broken 1.0: ")
        assert isinstance(problem.error, BaseException)
        assert str(problem) in caplog.text

    def test_of_two_clashing_plugins_the_first_by_name_is_used_and_the_other_named(
        self, install_plugin: InstallPlugin
    ) -> None:
        install_plugin("zoo", GOOD)
        install_plugin("acme-parrot", GOOD)
        registry = ProviderRegistry().discover()
        assert [entry.distribution for entry in registry.kinds() if entry.kind == "parrot"] == [
            "acme-parrot"
        ]
        [problem] = registry.problems
        assert problem.distribution == "zoo"
        assert isinstance(problem.error, KindTaken)
        assert "of the plugin 'zoo' of zoo 1.0 is taken by the plugin 'acme-parrot'" in str(problem)

    def test_no_plugin_takes_the_kind_that_comes_with_the_package(
        self, install_plugin: InstallPlugin
    ) -> None:
        install_plugin("aaa", GOOD.replace('"parrot"', '"gguf"'))
        registry = ProviderRegistry().discover()
        assert {e.kind: e.distribution for e in registry.kinds()}["gguf"] == "mofa-gguf"
        assert registry.problems[0].distribution == "aaa"

    def test_the_unknown_kind_of_a_broken_plugin_is_explained(
        self, install_plugin: InstallPlugin
    ) -> None:
        install_plugin("acme", "import a_module_nobody_has")
        registry = ProviderRegistry().discover()
        with pytest.raises(ProviderNotSupported) as caught:
            registry.create(LLMConfig(provider="acme"))
        assert "Plugins that failed to load: the plugin 'acme' of acme 1.0: " in str(caught.value)
        assert "a_module_nobody_has" in str(caught.value)

    def test_discovering_again_finds_what_was_installed_since_and_repeats_nothing(
        self, install_plugin: InstallPlugin
    ) -> None:
        install_plugin("broken", "1 / 0")
        registry = ProviderRegistry().discover()
        install_plugin("acme-parrot", GOOD)
        registry.discover()
        assert "parrot" in kinds_of(registry)
        assert len(registry.problems) == 1

    def test_a_name_the_application_registered_is_kept_from_plugins(
        self, install_plugin: InstallPlugin
    ) -> None:
        install_plugin("acme-parrot", GOOD)
        registry = ProviderRegistry()
        registry.register("parrot", make_scripted)
        registry.discover()
        assert "is taken by the application" in registry.problems[0].reason


class TestPluginsInHand:
    def test_a_plugin_that_is_not_installed_can_be_registered(self) -> None:
        plugin = types.ModuleType("in_hand")

        @hookimpl
        def mofa_register_providers(registry: ProviderRegistry) -> None:
            registry.register("in-hand", make_scripted)

        plugin.mofa_register_providers = mofa_register_providers  # type: ignore[attr-defined]
        registry = ProviderRegistry()
        registry.register_plugin(plugin)
        assert registry.kinds() == [ProviderEntry("in-hand")]
        with pytest.raises(ConfigError, match="already in use"):
            registry.register_plugin(plugin)

    def test_its_errors_reach_whoever_registers_it(self) -> None:
        with pytest.raises(ConfigError, match="implements no MoFA hook"):
            ProviderRegistry().register_plugin(types.ModuleType("empty"))
