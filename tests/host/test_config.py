"""Configuration files: where they are found, what they may say, what is said of wrong ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mofa_gguf.contract import ConfigError
from mofa_gguf.host import LLMConfig, ProviderRegistry, find_config, load_config, load_provider
from mofa_gguf.host import config as config_module
from mofa_gguf.host.testing import ScriptedProvider

TOML = """
default = "local"

[providers.local]
provider = "gguf"
model = "models/tiny.gguf"
n_ctx = 4096
default_temperature = 0.2

[providers.cloud]
provider = "openai"
api_key = "${MOFA_TEST_KEY}"
"""

YAML = """
default: local
providers:
  local:
    provider: gguf
    model: models/tiny.gguf
    n_ctx: 4096
    default_temperature: 0.2
  cloud: {provider: openai, api_key: "${MOFA_TEST_KEY}"}
"""

JSON = json.dumps(
    {
        "default": "local",
        "providers": {
            "local": {
                "provider": "gguf",
                "model": "models/tiny.gguf",
                "n_ctx": 4096,
                "default_temperature": 0.2,
            },
            "cloud": {"provider": "openai", "api_key": "${MOFA_TEST_KEY}"},
        },
    }
)

ONE = '[providers.{name}]\nprovider = "gguf"\n'


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, an empty user folder, no MOFA_CONFIG."""
    for name in ("work", "user"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MOFA_CONFIG", raising=False)
    monkeypatch.setattr(config_module, "_user_folder", lambda: tmp_path / "user")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


class TestFinding:
    def test_the_order_is_path_then_variable_then_working_folder_then_user_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        user = write(tmp_path / "user" / "mofa.toml", ONE.format(name="user"))
        assert find_config() == user
        work = write(tmp_path / "work" / "mofa.yaml", "providers: {work: {provider: gguf}}")
        assert find_config() == work
        named = write(tmp_path / "named.json", '{"providers": {"named": {"provider": "gguf"}}}')
        monkeypatch.setenv("MOFA_CONFIG", str(named))
        assert find_config() == named
        explicit = write(tmp_path / "explicit.toml", ONE.format(name="explicit"))
        assert find_config(explicit) == explicit
        assert list(load_config(explicit).providers) == ["explicit"]

    @pytest.mark.parametrize("name", ["mofa.toml", "mofa.yaml", "mofa.yml", "mofa.json"])
    def test_every_name_is_found_in_the_working_folder(self, tmp_path: Path, name: str) -> None:
        file = write(tmp_path / "work" / name, "")
        assert find_config() == file

    def test_of_two_files_in_a_folder_toml_is_used_and_the_other_mentioned(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path / "work" / "mofa.yaml", "")
        toml = write(tmp_path / "work" / "mofa.toml", "")
        with caplog.at_level(logging.WARNING):
            assert find_config() == toml
        assert "mofa.yaml beside it is ignored" in caplog.text

    def test_without_any_file_the_error_lists_the_places(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            find_config()
        message = caught.value.message
        assert "MOFA_CONFIG is not set" in message
        assert str(tmp_path / "work") in message
        assert str(tmp_path / "user") in message
        assert "mofa.toml, mofa.yaml, mofa.yml, mofa.json" in message

    def test_a_missing_explicit_file_does_not_fall_back_to_another(self, tmp_path: Path) -> None:
        write(tmp_path / "work" / "mofa.toml", ONE.format(name="a"))
        with pytest.raises(
            ConfigError, match=r"no-such\.toml: there is no such configuration file"
        ):
            load_config(tmp_path / "no-such.toml")

    def test_a_missing_file_of_the_variable_says_who_named_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MOFA_CONFIG", str(tmp_path / "gone.toml"))
        with pytest.raises(ConfigError, match=r"gone.toml \(MOFA_CONFIG names it\): there is no"):
            load_config()

    def test_an_empty_variable_is_no_variable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MOFA_CONFIG", "")
        file = write(tmp_path / "work" / "mofa.toml", "")
        assert find_config() == file

    def test_a_folder_is_not_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder; name the file in it"):
            load_config(tmp_path)


class TestReading:
    @pytest.mark.parametrize(
        ("name", "text"), [("c.toml", TOML), ("c.yaml", YAML), ("c.yml", YAML), ("c.json", JSON)]
    )
    def test_every_format_says_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
    ) -> None:
        monkeypatch.setenv("MOFA_TEST_KEY", "secret")
        config = load_config(write(tmp_path / name, text))
        local = config.select()
        assert local.provider == "gguf"
        assert local.options() == {
            "default_temperature": 0.2,
            "model": "models/tiny.gguf",
            "n_ctx": 4096,
        }
        assert local.base_dir == tmp_path
        assert config.select("cloud").api_key == "secret"
        assert list(config.providers) == ["local", "cloud"]

    def test_the_only_provider_is_the_default(self, tmp_path: Path) -> None:
        config = load_config(write(tmp_path / "c.toml", ONE.format(name="a")))
        assert config.default is None
        assert config.select().provider == "gguf"

    def test_the_base_folder_is_absolute_even_for_a_relative_path(self, tmp_path: Path) -> None:
        write(tmp_path / "work" / "sub" / "c.toml", ONE.format(name="a"))
        assert load_config("sub/c.toml").select().base_dir == tmp_path / "work" / "sub"

    def test_a_byte_order_mark_is_not_part_of_the_text(self, tmp_path: Path) -> None:
        file = tmp_path / "c.toml"
        file.write_bytes(b"\xef\xbb\xbf" + ONE.format(name="a").encode())
        assert list(load_config(file).providers) == ["a"]

    def test_yaml_anchors_and_merges_work(self, tmp_path: Path) -> None:
        text = """
            providers:
              base: &base {provider: gguf, model: a}
              other: &other {<<: *base, model: b}
              third: {<<: *other}
        """
        config = load_config(write(tmp_path / "c.yaml", text))
        assert [c.extra["model"] for c in config.providers.values()] == ["a", "b", "b"]


class TestEnvironment:
    @pytest.mark.parametrize(
        ("value", "read"),
        [
            ("${MOFA_TEST_A}", "alpha"),
            ("$MOFA_TEST_A", "alpha"),
            ("x-${MOFA_TEST_A}-$MOFA_TEST_B.y", "x-alpha-$beta.y"),
            ("${MOFA_TEST_UNSET}/$MOFA_TEST_UNSET", "${MOFA_TEST_UNSET}/$MOFA_TEST_UNSET"),
            ("$5 and ${} and $", "$5 and ${} and $"),
            ("${MOFA_TEST_N}", "4096"),
        ],
    )
    def test_values_come_from_the_environment_and_unknown_names_stay(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, read: str
    ) -> None:
        monkeypatch.setenv("MOFA_TEST_A", "alpha")
        monkeypatch.setenv("MOFA_TEST_B", "$beta")  # what is put in is not looked at again
        monkeypatch.setenv("MOFA_TEST_N", "4096")
        monkeypatch.delenv("MOFA_TEST_UNSET", raising=False)
        table = {"providers": {"a": {"provider": "gguf", "x": value, "deep": [{"y": value}]}}}
        config = load_config(write(tmp_path / "c.json", json.dumps(table))).select()
        assert config.extra == {"x": read, "deep": [{"y": read}]}

    def test_a_variable_cannot_bring_in_structure(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MOFA_TEST_A", '"\nevil = true')
        config = load_config(
            write(tmp_path / "c.toml", '[providers.a]\nprovider = "gguf"\nx = "${MOFA_TEST_A}"')
        )
        assert config.select().extra == {"x": '"\nevil = true'}

    def test_an_unset_variable_is_mentioned_in_the_log(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("MOFA_TEST_KEY", raising=False)
        with caplog.at_level(logging.WARNING):
            load_config(write(tmp_path / "c.toml", TOML))
        assert "MOFA_TEST_KEY is not in the environment" in caplog.text


WRONG = [
    ("c.toml", "providers = [", "is not valid TOML: ", None),
    ("c.toml", 'a = "x"\na = "y"\n[', "line 2", None),
    ("c.yaml", "providers: [", "is not valid YAML: ", None),
    ("c.yaml", "a: !!python/object:os.system {}", "is not valid YAML: ", None),
    ("c.yaml", "default: a\ndefault: b", "has the key 'default' twice (line 2)", None),
    ("c.json", '{"providers": }', "is not valid JSON: Expecting value: line 1 column 15", None),
    ("c.json", '{"default": "a", "default": "b"}', "has the key 'default' twice", None),
    ("c.json", "[1]", "holds a list, not a table of keys", None),
    ("c.yaml", "just text", "holds a string, not a table of keys", None),
    ("c.json", "[" * 50_000, "c.json: ", None),
    ("c.yaml", "a: &a [*a]", "nested more than 32 levels deep", None),
    ("c.yaml", "providers: {1: {provider: gguf}}", "the key 1 in providers is not text", None),
    ("c.toml", "default = 1979-05-27", "default is a date, which no option takes", "default"),
    ("c.ini", "", "the ending '.ini' is no known format; known are .json, .toml, .yaml", None),
    ("mofa", "", "the ending '' is no known format", None),
    ("c.toml", "", "names no provider; add a table such as [providers.local]", "providers"),
    ("c.toml", "[providers]", "names no provider", "providers"),
    ("c.toml", "defualt = 'a'", "unknown key 'defualt' (did you mean 'default'?)", "defualt"),
    (
        "c.toml",
        'provider = "gguf"',
        "unknown key 'provider' (did you mean 'providers'?); known keys: default and providers "
        "(a provider's options belong in its [providers.NAME] table)",
        "provider",
    ),
    ("c.toml", "default = 3", "default: input should be a valid string", "default"),
    ("c.toml", 'providers = "gguf"', "providers: input should be a valid dictionary", "providers"),
    ("c.toml", "[[providers]]", "providers: input should be a valid dictionary", "providers"),
    ("c.toml", "providers.a = 3", "providers.a: input should be a valid dictionary", "providers.a"),
    (
        "c.toml",
        "[providers.a]\nmodel = 'x'",
        'providers.a has no key provider that says which kind it is; add provider = "gguf"',
        "providers.a.provider",
    ),
    (
        "c.toml",
        "[providers.a]\nprovder = 'gguf'",
        "providers.a has no key provider that says which kind it is; "
        "is 'provder' a misspelling of it?",
        "providers.a.provider",
    ),
    (
        "c.toml",
        "[providers.a]\nprovider = 3",
        "providers.a.provider: input should be a valid string",
        "providers.a.provider",
    ),
    (
        "c.toml",
        "[providers.a]\nprovider = 'gguf'\ndefault_max_tokens = 'many'",
        "providers.a.default_max_tokens: input should be a valid integer",
        "providers.a.default_max_tokens",
    ),
    (
        "c.toml",
        "[providers.a]\nprovider = 'gguf'\nbase_dir = '/'",
        "providers.a.base_dir cannot be set; relative paths start at the file's folder",
        "providers.a.base_dir",
    ),
    (
        "c.toml",
        "default = 'lokal'\n[providers.local]\nprovider = 'gguf'",
        "default names 'lokal', but there is no provider 'lokal' (did you mean 'local'?); "
        "the file has local",
        "default",
    ),
]


class TestWrongFiles:
    @pytest.mark.parametrize(("name", "text", "sentence", "field"), WRONG)
    def test_the_error_is_one_line_that_names_the_file_and_the_problem(
        self, tmp_path: Path, name: str, text: str, sentence: str, field: str | None
    ) -> None:
        file = write(tmp_path / name, text)
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        error = caught.value
        assert error.message.startswith(f"{file}: ")
        assert sentence in error.message
        assert "\n" not in error.message
        assert error.field == field
        assert error.path == file

    def test_text_that_is_no_utf8_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "c.toml"
        file.write_bytes(b"x = '\xff'")
        with pytest.raises(ConfigError, match="is not UTF-8 text"):
            load_config(file)

    def test_an_unknown_provider_name_is_answered_with_the_known_ones(self, tmp_path: Path) -> None:
        config = load_config(write(tmp_path / "c.toml", TOML))
        with pytest.raises(ConfigError) as caught:
            config.select("colud")
        assert caught.value.message == (
            f"{config.path}: there is no provider 'colud' (did you mean 'cloud'?); "
            "the file has local and cloud"
        )
        assert caught.value.known == ("local", "cloud")

    def test_several_providers_without_a_default_need_a_name(self, tmp_path: Path) -> None:
        text = ONE.format(name="a") + ONE.format(name="b")
        config = load_config(write(tmp_path / "c.toml", text))
        with pytest.raises(ConfigError, match="there are a and b: add for example default = 'a'"):
            config.select()
        assert config.select("b").provider == "gguf"


class TestLoadProvider:
    def test_the_named_or_default_provider_is_made_with_its_options_and_folder(
        self, tmp_path: Path
    ) -> None:
        seen: list[LLMConfig] = []

        def make(config: LLMConfig) -> ScriptedProvider:
            seen.append(config)
            return ScriptedProvider()

        registry = ProviderRegistry()
        registry.register("gguf", make)
        file = write(tmp_path / "c.toml", TOML.replace('"openai"', '"gguf"'))
        load_provider(file, registry=registry)
        load_provider(file, name="cloud", registry=registry)
        assert seen[0].extra == {"model": "models/tiny.gguf", "n_ctx": 4096}
        assert seen[0].base_dir == tmp_path
        assert "api_key" in seen[1].options()


class TestLLMConfig:
    def test_mofas_json_is_read_and_written_with_extra_keys_beside_the_others(self) -> None:
        data = {
            "provider": "gguf",
            "default_model": "m",
            "default_temperature": 0.7,
            "default_max_tokens": 4096,
            "timeout_secs": 60,
            "max_retries": 3,
            "n_ctx": 512,
        }
        config = LLMConfig.from_json(json.dumps(data))
        assert config.to_dict() == data
        assert config.extra == {"n_ctx": 512}

    def test_the_defaults_are_mofas_but_only_given_keys_are_options_and_written(self) -> None:
        config = LLMConfig(provider="gguf")
        assert (config.default_temperature, config.default_max_tokens) == (0.7, 4096)
        assert (config.timeout_secs, config.max_retries) == (60, 3)
        assert config.options() == {}
        assert config.to_dict() == {"provider": "gguf"}
        assert LLMConfig(provider="gguf", default_temperature=0.7).options() == {
            "default_temperature": 0.7
        }

    def test_the_constructors_and_builders_make_what_mofas_make(self) -> None:
        assert LLMConfig.openai("k").to_dict() == {
            "provider": "openai",
            "api_key": "k",
            "base_url": "https://api.openai.com/v1",
            "default_model": "gpt-4",
        }
        assert LLMConfig.anthropic("k").provider == "anthropic"
        assert LLMConfig.ollama("llama3").base_url == "http://localhost:11434"
        assert LLMConfig.openai_compatible("u", "k", "m").provider == "openai-compatible"
        assert LLMConfig.gguf("a.gguf").to_dict() == {"provider": "gguf", "model": "a.gguf"}
        built = LLMConfig(provider="x").model("m").temperature(0.1).max_tokens(9)
        assert built.options() == {
            "default_model": "m",
            "default_temperature": 0.1,
            "default_max_tokens": 9,
        }

    def test_the_api_key_is_not_shown(self) -> None:
        assert "secret" not in repr(LLMConfig.openai("secret"))

    def test_the_base_folder_is_neither_written_nor_read(self, tmp_path: Path) -> None:
        config = LLMConfig(provider="gguf", base_dir=tmp_path)
        assert config.to_dict() == {"provider": "gguf"}
        assert config.options() == {}
        with pytest.raises(Exception, match="base_dir is set by the host"):
            LLMConfig.from_dict({"provider": "gguf", "base_dir": "/"})
