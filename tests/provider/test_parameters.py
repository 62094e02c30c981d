"""Generation parameters: checked, named, and filled up from the defaults."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mofa_gguf import ChatCompletionRequest, ConfigError
from mofa_gguf.provider.parameters import (
    EFFORT_BUDGETS,
    FALLBACK,
    Parameters,
    read_parameters,
    sampling_options,
)


def request(**values: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(**values)


def test_every_parameter_reaches_the_sampler() -> None:
    values: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.8,
        "frequency_penalty": 0.25,
        "presence_penalty": -0.25,
        "top_k": 7,
        "min_p": 0.1,
        "typical_p": 0.9,
        "top_n_sigma": 1.5,
        "xtc_probability": 0.3,
        "xtc_threshold": 0.2,
        "dynatemp_range": 0.1,
        "dynatemp_exponent": 2.0,
        "repeat_penalty": 1.1,
        "repeat_last_n": 32,
        "dry_multiplier": 0.8,
        "dry_base": 1.5,
        "dry_allowed_length": 3,
        "dry_last_n": 100,
        "mirostat": 2,
        "mirostat_tau": 4.0,
        "mirostat_eta": 0.2,
        "dry_sequence_breakers": ("\n", "|"),
        "adaptive_target": 0.5,
        "adaptive_decay": 0.75,
        "logit_bias": {5: -1.0},
        "logit_bias_text": {"never": -2.0},
        "seed": 11,
        "min_keep": 2,
    }
    options = sampling_options(read_parameters(request(**values)), {})
    for name, value in values.items():
        assert getattr(options, name) == pytest.approx(value), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("top_p", 1.5),
        ("max_tokens", 0),
        ("frequency_penalty", 3),
        ("presence_penalty", -3),
        ("top_k", -1),
        ("min_p", 2),
        ("typical_p", -1),
        ("repeat_penalty", 0),
        ("mirostat", 3),
        ("n", 0),
        ("n", 17),
        ("seed", -1),
        ("top_logprobs", 21),
        ("logit_bias", {"x": 1}),
        ("logit_bias", {"5": 1000}),
        ("logit_bias_text", {"": 1}),
        ("repeat_last_n", -2),
        ("adaptive_decay", 1.0),
        ("dry_sequence_breakers", [""]),
        ("speculation", "guess"),
        ("stop", [""]),
        ("min_tokens", -1),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        read_parameters(request(**{name: value}))
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", "40"),
        ("top_k", 40.0),
        ("top_k", True),
        ("min_p", "0.1"),
        ("min_p", False),
        ("seed", "1"),
        ("n", "2"),
        ("n", 2.0),
        ("min_tokens", "1"),
        ("max_completion_tokens", "5"),
        ("top_logprobs", "3"),
        ("mirostat", "1"),
        ("mirostat", True),
        ("ignore_eos", "yes"),
        ("logprobs", 1),
        ("enable_thinking", "false"),
        ("parallel_tool_calls", 0),
        ("timeout_s", "5"),
        ("priority", "1"),
        ("reasoning_budget", "10"),
        ("regex", b"a"),
        ("logit_bias", {"5": "1"}),
        ("logit_bias", {5.0: 1}),
        ("logit_bias", {True: 1}),
        ("logit_bias", {" 5": 1}),
        ("logit_bias_text", {"a": "1"}),
        ("dry_sequence_breakers", [5]),
        ("dry_sequence_breakers", "ab"),
        ("documents", "ab"),
    ],
)
def test_extras_are_read_as_strictly_as_mofas_own_fields(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name} = .*: input should be") as caught:
        read_parameters(request(**{name: value}))
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("min_p", 0, 0.0),
        ("repeat_penalty", 1, 1.0),
        ("timeout_s", 5, 5.0),
        ("keep_alive", "5m", 300.0),
        ("keep_alive", 60, 60.0),
        ("logit_bias", {"5": 1}, {5: 1.0}),
        ("logit_bias_text", {"a": -1}, {"a": -1.0}),
        ("dry_sequence_breakers", ["a"], ("a",)),
        ("documents", ({"text": "a"},), [{"text": "a"}]),
    ],
)
def test_whole_numbers_are_numbers_and_json_has_its_own_lists_and_keys(
    name: str, value: object, read: object
) -> None:
    found = getattr(read_parameters(request(**{name: value})), name)
    assert (found, type(found)) == (read, type(read))


def test_a_file_may_write_a_whole_number_as_a_float() -> None:
    assert sampling_options(Parameters(), {"general.sampling.top_k": 20.0}).top_k == 20


def test_a_misspelt_parameter_is_refused_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'repeat_penalty'"):
        read_parameters(request(repeat_penalties=1.1))


def test_openai_extras_without_local_meaning_are_let_through() -> None:
    openai = request(stream_options={"include_usage": True}, store=False, modalities=["text"])
    assert read_parameters(openai) == Parameters()


@pytest.mark.parametrize("value", [True, 0, "false"])
def test_what_only_looks_like_nothing_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="keep yours") as caught:
        read_parameters(request(store=value))
    assert caught.value.field == "store"


def test_openais_service_tiers_are_places_in_the_queue() -> None:
    def place(**values: object) -> int:
        return read_parameters(request(**values)).precedence

    flex, priority = place(service_tier="flex"), place(service_tier="priority")
    assert flex < place() == place(service_tier="auto") == 0 < priority
    assert place(service_tier="priority", priority=0) == 0


def test_a_length_is_the_templates_business_or_nobodys() -> None:
    given = read_parameters(request(verbosity="low"))
    assert given.template_arguments({"verbosity"}) == {"verbosity": "low"}
    with pytest.raises(ConfigError, match="say in a message") as caught:
        given.template_arguments({"messages"})
    assert caught.value.field == "verbosity"
    read_parameters(request(verbosity="medium")).template_arguments({"messages"})


def test_logit_bias_takes_ids_as_json_writes_them() -> None:
    assert read_parameters(request(logit_bias={"42": 1.5})).logit_bias == {42: 1.5}


def test_where_the_request_is_silent_the_models_defaults_apply() -> None:
    metadata = {
        "general.sampling.temp": 0.25,
        "general.sampling.top_k": 20,
        "general.sampling.penalty_repeat": 1.05,
    }
    silent = sampling_options(Parameters(), metadata)
    assert (silent.temperature, silent.top_k, silent.repeat_penalty) == (0.25, 20, 1.05)
    assert silent.top_p == FALLBACK.top_p
    asked = sampling_options(Parameters(temperature=0), metadata)
    assert (asked.temperature, asked.top_k) == (0, 20)
    configured = sampling_options(Parameters(), metadata, default_temperature=1.0)
    assert configured.temperature == 1.0


@pytest.mark.parametrize("value", [-5.0, math.inf, "hot", True, [0.1]])
def test_nonsense_in_the_models_file_is_passed_over(value: object) -> None:
    options = sampling_options(Parameters(), {"general.sampling.temp": value})
    assert options.temperature == FALLBACK.temperature


def test_several_choices_of_a_seeded_request_have_seeds_of_their_own() -> None:
    seeded = Parameters(seed=2**32 - 1)
    assert [sampling_options(seeded, {}, choice=i).seed for i in range(2)] == [2**32 - 1, 0]
    assert sampling_options(Parameters(), {}).seed is None


def test_logprobs_and_answer_limit_have_two_spellings() -> None:
    assert Parameters().n_top_logprobs is None
    assert Parameters(logprobs=True).n_top_logprobs == 0
    assert Parameters(logprobs=True, top_logprobs=3).n_top_logprobs == 3
    assert Parameters(logprobs=False, top_logprobs=0).n_top_logprobs is None
    with pytest.raises(ConfigError, match="contradict"):
        _ = Parameters(logprobs=False, top_logprobs=3).n_top_logprobs
    assert Parameters(max_completion_tokens=9).answer_limit == 9
    assert Parameters(max_tokens=7, max_completion_tokens=9).answer_limit == 7
    assert Parameters(max_tokens=9, max_completion_tokens=7).answer_limit == 7


def test_template_arguments_are_collected() -> None:
    given = Parameters(enable_thinking=False, chat_template_kwargs={"tone": "dry"})
    assert given.template_arguments({"messages"}) == {"enable_thinking": False, "tone": "dry"}


@pytest.mark.parametrize(
    ("extra", "variables", "arguments", "budget"),
    [
        ({}, set(), {}, None),
        ({"reasoning_budget": 7}, set(), {}, 7),
        ({"reasoning_budget": -1, "reasoning_effort": "low"}, set(), None, None),
        ({"reasoning_effort": "low"}, set(), None, EFFORT_BUDGETS["low"]),
        ({"reasoning_effort": "low"}, {"reasoning_effort"}, {"reasoning_effort": "low"}, None),
        ({"reasoning_effort": "xhigh"}, set(), None, None),
        (
            {"reasoning_effort": "none"},
            {"enable_thinking"},
            {"enable_thinking": False, "reasoning_effort": "none"},
            0,
        ),
        ({"enable_thinking": True}, {"thinking"}, {"thinking": True}, None),
        ({"enable_thinking": True}, {"thinking", "enable_thinking"}, None, None),
        ({"documents": ["a"]}, {"documents"}, {"documents": ["a"]}, None),
    ],
)
def test_what_a_request_says_about_reasoning_reaches_template_or_budget(
    extra: dict[str, Any],
    variables: set[str],
    arguments: dict[str, Any] | None,
    budget: int | None,
) -> None:
    given = read_parameters(ChatCompletionRequest(**extra))
    if arguments is not None:
        assert given.template_arguments(variables) == arguments
    assert given.thinking_budget(variables) == budget


def test_documents_that_nobody_would_read_are_refused() -> None:
    given = read_parameters(ChatCompletionRequest(documents=["a"]))
    with pytest.raises(ConfigError) as caught:
        given.template_arguments({"messages"})
    assert caught.value.field == "documents"
