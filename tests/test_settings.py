"""GGUFConfig: what it takes from whom, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mofa_gguf import ConfigError, GGUFConfig


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [n for n in os.environ if n.startswith("MOFA_GGUF_")]:
        monkeypatch.delenv(name)


def test_only_the_model_is_required() -> None:
    config = GGUFConfig(model="m.gguf")
    assert (config.n_ctx, config.n_gpu_layers, config.quantization) == ("auto", "auto", "Q8_0")
    with pytest.raises(ConfigError, match="MOFA_GGUF_MODEL"):
        GGUFConfig()


def test_what_the_caller_leaves_out_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOFA_GGUF_MODEL", "from-env.gguf")
    monkeypatch.setenv("MOFA_GGUF_N_CTX", "2048")
    monkeypatch.setenv("MOFA_GGUF_TENSOR_SPLIT", "[1, 2]")
    config = GGUFConfig(n_ctx=512)
    assert (config.model, config.n_ctx, config.tensor_split) == ("from-env.gguf", 512, (1.0, 2.0))


def test_the_environment_goes_before_a_config_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFA_GGUF_N_GPU_LAYERS", "0")
    config = GGUFConfig.from_options({"model": "m.gguf", "n_gpu_layers": "all"})
    assert config.n_gpu_layers == 0


@pytest.mark.parametrize("name", ["n_ctx", "draft_model", "lora", "models", "warm_up"])
def test_an_empty_variable_says_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MOFA_GGUF_{name.upper()}", "")
    for config in (GGUFConfig(model="m.gguf"), GGUFConfig.from_options({"model": "m.gguf"})):
        assert getattr(config, name) == GGUFConfig.model_fields[name].get_default(
            call_default_factory=True
        )


def test_a_bad_value_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFA_GGUF_N_CTX", "plenty")
    with pytest.raises(ConfigError) as caught:
        GGUFConfig(model="m.gguf")
    assert caught.value.field == "n_ctx"


@pytest.mark.parametrize(
    ("name", "text"),
    [("tensor_split", "1,2"), ("rpc_servers", "host:50052"), ("models", '{"a": ')],
)
def test_a_list_or_table_in_the_environment_that_is_no_json_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"MOFA_GGUF_{name.upper()}", text)
    for make in (GGUFConfig.from_options, lambda options: GGUFConfig(**options)):
        with pytest.raises(
            ConfigError, match=f"MOFA_GGUF_{name.upper()} .* JSON .*write a list"
        ) as e:
            make({"model": "m.gguf"})
        assert e.value.field == name


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"n_ctx": 0}, "n_ctx"),
        ({"n_ctx": "large"}, "n_ctx"),
        ({"n_gpu_layers": -2}, "n_gpu_layers"),
        ({"cache_type_k": "q9_9"}, "cache_type_k"),
        ({"n_threads": 0}, "n_threads"),
        ({"default_temperature": 3}, "default_temperature"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"flash_attn": "maybe"}, "flash_attn"),
        ({"model": ""}, "model"),
        ({"n_batch": 2**20 + 1}, "n_batch"),
        ({"n_embedding_batch": 2**31}, "n_embedding_batch"),
        ({"n_ctx": 2**31}, "n_ctx"),
        ({"memory_budget": 10**400}, "memory_budget"),
        ({"memory_budget": "9" * 5000}, "memory_budget"),
        ({"timeout_s": math.nan}, "timeout_s"),
        ({"lora": [{"path": "a.gguf", "scale": 10**400}]}, "lora"),
        ({"lora": [{"path": "a.gguf", "scale": math.nan}]}, "lora"),
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        GGUFConfig(**{"model": "m.gguf", **options})
    assert caught.value.field == field
    assert field in str(caught.value)
    assert caught.value.message.partition(": ")[2], "nothing says what is wrong"
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", sorted(GGUFConfig.model_fields))
def test_no_option_has_an_error_of_another_kind_or_a_page_of_one(name: str) -> None:
    huge = (10**400, -(10**400), 10**5000, "9" * 5000, [10**400], {"a": 1e308})
    values = (*huge, math.inf, math.nan)
    for value in values:
        try:
            GGUFConfig(**{"model": "m.gguf", name: value})
        except ConfigError as error:
            assert len(error.message) < 500


def test_of_several_forms_that_a_value_may_have_each_is_told() -> None:
    with pytest.raises(ConfigError, match=r"n_gpu_layers = 'most': .*integer.* or .*'auto'.*'all'"):
        GGUFConfig(model="m.gguf", n_gpu_layers="most")


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'n_context'.*did you mean 'n_ctx'.*known are .*n_ctx"):
        GGUFConfig(model="m.gguf", n_context=1)


def test_a_misspelt_option_is_told_before_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        GGUFConfig(modl="m.gguf")


def test_mofas_own_names_are_understood() -> None:
    config = GGUFConfig.from_options(
        {"default_model": "m.gguf", "timeout_secs": 5, "max_retries": 2, "default_temperature": 0.1}
    )
    assert (config.model, config.timeout_s, config.default_temperature) == ("m.gguf", 5, 0.1)
    both = GGUFConfig.from_options({"default_model": "a", "model": "b"})
    assert both.model == "b"


def test_a_table_of_the_caller_is_not_mixed_with_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOFA_GGUF_MODELS", '{"theirs": "t.gguf"}')
    assert list(GGUFConfig(models={"ours": "o.gguf"}).models) == ["ours"]
    assert GGUFConfig(model="m.gguf", models={}).each() == {}


def test_what_was_chosen_by_hand_does_not_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOFA_GGUF_MODEL", "e.gguf")
    monkeypatch.setenv("MOFA_GGUF_NAME", "theirs")
    monkeypatch.setenv("MOFA_GGUF_N_CTX", "77")
    options = {"model": "m.gguf", "n_ctx": 5}
    assert GGUFConfig.from_options(options).model == "e.gguf"
    config = GGUFConfig.from_options(options, chosen=("model", "name"))
    assert (config.model, config.name, config.n_ctx) == ("m.gguf", None, 77)


def test_relative_paths_count_from_the_config_files_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()

    def model(value: str) -> str:
        return GGUFConfig.from_options({"model": value}, tmp_path).model

    assert model("models/m.gguf") == str(tmp_path / "models/m.gguf")
    assert model("./x") == str(tmp_path / "x")
    assert model("checkpoint") == str(tmp_path / "checkpoint")
    assert model("org/name") == "org/name"
    (tmp_path / "models").mkdir()
    assert model("models/tiny") == str(tmp_path / "models/tiny")
    (tmp_path / "demo").mkdir()
    assert model("demo") == "demo"
    assert model("/abs/m.gguf") == "/abs/m.gguf"


def test_a_relative_cache_folder_counts_from_there_too(tmp_path: Path) -> None:
    def cache_dir(value: str) -> Path | None:
        return GGUFConfig.from_options({"model": "demo", "cache_dir": value}, tmp_path).cache_dir

    assert cache_dir("not-there-yet") == tmp_path / "not-there-yet"
    assert cache_dir("/abs") == Path("/abs")
    assert cache_dir("~/kept") == Path.home() / "kept"


def test_the_engine_gets_plain_values() -> None:
    options = GGUFConfig(model="m.gguf", n_ctx=1024, cache_type_k="q8_0").engine_options()
    assert (options.n_ctx, options.cache_type_k, options.n_batch) == (1024, "q8_0", 512)


def test_a_draft_model_is_a_path_like_the_model(tmp_path: Path) -> None:
    options = {"model": "m.gguf", "draft_model": "small/d.gguf"}
    config = GGUFConfig.from_options(options, base_dir=tmp_path)
    assert config.draft_model == str(tmp_path / "small/d.gguf")


def test_drafts_cannot_be_asked_for_without_a_draft_model() -> None:
    with pytest.raises(ConfigError, match="needs a draft_model"):
        GGUFConfig(model="m.gguf", speculation="draft-model")


class TestSeveralModels:
    def test_each_may_have_its_own_draft_model_but_none_is_common(self) -> None:
        models = {"a": {"model": "a.gguf", "draft_model": "d.gguf"}, "b": "b.gguf"}
        each = GGUFConfig(models=models).each()
        assert (each["a"].draft_model, each["b"].draft_model) == ("d.gguf", None)
        with pytest.raises(ConfigError, match="the table of the model it is for"):
            GGUFConfig(models=models, draft_model="d.gguf")

    def test_each_has_the_common_options_and_its_own(self) -> None:
        config = GGUFConfig(
            n_ctx=1024,
            keep_alive="5m",
            models={"big": {"model": "b.gguf", "n_ctx": 4096}, "small": "s.gguf"},
        )
        each = config.each()
        assert list(each) == ["big", "small"]
        assert (each["big"].model, each["big"].n_ctx) == ("b.gguf", 4096)
        assert (each["small"].model, each["small"].n_ctx) == ("s.gguf", 1024)
        assert each["small"].keep_alive == 300
        assert each["small"].name == "small"

    def test_the_first_is_the_default_unless_model_names_another(self) -> None:
        models = {"a": "a.gguf", "b": "b.gguf"}
        assert GGUFConfig(models=models).model == "a"
        assert GGUFConfig(models=models, model="b").model == "b"
        from_file = GGUFConfig.from_options({"models": models, "default_model": "b"})
        assert from_file.model == "b"

    def test_the_environment_does_not_take_a_models_own_place(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MOFA_GGUF_MODELS", '{"a": {"model": "a.gguf", "n_ctx": 64}}')
        monkeypatch.setenv("MOFA_GGUF_N_CTX", "128")
        each = GGUFConfig().each()
        assert (each["a"].model, each["a"].n_ctx, each["a"].models) == ("a.gguf", 64, {})

    def test_warming_up_is_for_all_for_some_or_said_by_a_model(self) -> None:
        models = {"a": "a.gguf", "b": {"model": "b.gguf"}, "c": {"model": "c", "warm_up": True}}
        for given, warm in [(True, "abc"), (False, "c"), (("b",), "bc")]:
            each = GGUFConfig(models=models, warm_up=given).each()
            assert "".join(name for name in each if each[name].warm_up) == warm

    def test_relative_paths_of_each_start_at_the_files_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        options = {"models": {"a": "a", "b": {"model": "x/y", "cache_dir": "./c"}}}
        config = GGUFConfig.from_options(options, tmp_path)
        each = config.each()
        assert config.model == "a"
        assert each["a"].model == str(tmp_path / "a")
        assert (each["b"].model, each["b"].cache_dir) == ("x/y", tmp_path / "c")

    @pytest.mark.parametrize(
        ("options", "field", "words"),
        [
            ({"models": {"a": "a.gguf"}, "model": "b"}, "model", "known are a"),
            ({"models": {"a": "a.gguf"}, "warm_up": ["b"]}, "warm_up", "known are a"),
            ({"models": {"a": "a.gguf"}, "name": "x"}, "name", "names"),
            ({"models": {"a": {"n_ctx": 5}}}, "models.a.model", "missing"),
            ({"models": {"a": {"model": "a", "n_ctxx": 5}}}, "models.a.n_ctxx", "did you mean"),
            ({"models": {"a": {"model": "a", "n_ctx": 0}}}, "models.a.n_ctx", "models.a: n_ctx"),
            ({"models": {"a": {"model": "a", "memory_budget": 1}}}, "models.a", "of the provider"),
            ({"models": {"a": {"model": "a", "models": {}}}}, "models.a", "of the provider"),
        ],
    )
    def test_a_wrong_one_is_named(self, options: dict[str, object], field: str, words: str) -> None:
        with pytest.raises(ConfigError, match=words) as caught:
            GGUFConfig(**options)
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        (5, 5),
        ("5", 5),
        ("8GiB", 2**33),
        ("1.5 gib", 3 * 2**29),
        ("500MB", 5 * 10**8),
        ("2g", 2**31),
    ],
)
def test_sizes_are_read_as_people_write_them(text: object, n_bytes: int) -> None:
    assert GGUFConfig(model="m", memory_budget=text).memory_budget == n_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (5, 5),
        ("5", 5),
        ("5m", 300),
        ("1h30m", 5400),
        ("250ms", 0.25),
        (-1, -1),
        ("-1", -1),
        ("-5m", -1),
        (10**400, -1),
        ("9" * 400, -1),
    ],
)
def test_durations_are_read_as_people_write_them(text: object, seconds: float) -> None:
    assert GGUFConfig(model="m", keep_alive=text).keep_alive == seconds


@pytest.mark.parametrize("text", ["", "GiB", "5 lots", "-5GiB", "1h 5", True, None, [1]])
def test_what_is_neither_size_nor_duration_is_refused(text: object) -> None:
    for field in ("memory_budget", "keep_alive"):
        with pytest.raises(ConfigError, match="is a number of") as caught:
            GGUFConfig(model="m", **{field: text})
        assert caught.value.field == field
