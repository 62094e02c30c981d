"""Generation defaults and chat templates on their way into the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import ValueType
from mofa_gguf.convert.tokenizer import build_vocabulary
from mofa_gguf.convert.tokenizer.chat_templates import chat_template_metadata, read_chat_templates
from mofa_gguf.convert.tokenizer.response_template import response_template_metadata
from mofa_gguf.convert.tokenizer.sampling import read_sampling_defaults
from tests.convert.tokenizer.makers import plain, write_json

PATH = Path("generation_config.json")


def test_sampling_defaults_get_llama_cpps_names() -> None:
    config = {
        "do_sample": True,
        "temperature": 0.75,
        "top_k": 40,
        "top_p": 0.5,
        "min_p": 0.25,
        "repetition_penalty": 1.25,
        "max_length": 4096,
        "transformers_version": "4.44.0",
    }
    data = read_sampling_defaults(config, PATH)
    assert plain(data) == {
        "general.sampling.top_k": 40,
        "general.sampling.temp": 0.75,
        "general.sampling.top_p": 0.5,
        "general.sampling.min_p": 0.25,
        "general.sampling.penalty_repeat": 1.25,
    }
    top_k = data.get("general.sampling.top_k")
    assert top_k is not None
    assert top_k.type is ValueType.INT32


def test_no_sampling_means_temperature_zero() -> None:
    data = read_sampling_defaults({"do_sample": False, "temperature": 0.75}, PATH)
    assert plain(data) == {"general.sampling.temp": 0.0}


def test_silence_gives_no_keys() -> None:
    assert len(read_sampling_defaults({"temperature": None, "eos_token_id": 2}, PATH)) == 0


@pytest.mark.parametrize(
    "value", ["hot", True, [1], float("nan"), float("inf"), -0.5, 1e300, 10**400]
)
def test_a_temperature_that_is_no_sensible_number_is_refused(value: Any) -> None:
    with pytest.raises(TokenizerError, match="temperature"):
        read_sampling_defaults({"temperature": value}, PATH)


def test_a_template_in_tokenizer_config(tmp_path: Path) -> None:
    assert read_chat_templates(tmp_path, {"chat_template": "A"}) == {"default": "A"}


def test_named_templates_in_tokenizer_config(tmp_path: Path) -> None:
    listed = [{"name": "default", "template": "A"}, {"name": "tool-use", "template": "B"}]
    templates = read_chat_templates(tmp_path, {"chat_template": listed})
    assert templates == {"default": "A", "tool-use": "B"}
    assert plain(chat_template_metadata(templates)) == {
        "tokenizer.chat_template.tool_use": "B",
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template": "A",
    }


def test_jinja_files_win_over_tokenizer_config(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("main ✓", encoding="utf-8")
    extra = tmp_path / "additional_chat_templates"
    extra.mkdir()
    (extra / "rag.jinja").write_text("rag", encoding="utf-8")
    (extra / "notes.txt").write_text("no template", encoding="utf-8")
    templates = read_chat_templates(tmp_path, {"chat_template": "old"})
    assert templates == {"default": "main ✓", "rag": "rag"}


def test_a_processors_chat_template_json(tmp_path: Path) -> None:
    write_json(tmp_path, "chat_template.json", {"chat_template": "P"})
    assert read_chat_templates(tmp_path, {}) == {"default": "P"}
    assert read_chat_templates(tmp_path, {"chat_template": "T"}) == {"default": "T"}


@pytest.mark.parametrize(
    "value", [5, ["A"], [{"name": "x"}], [{"name": 1, "template": "A"}], {"a": 1}, "\ud800"]
)
def test_a_template_of_the_wrong_shape_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"chat.template"):
        read_chat_templates(tmp_path, {"chat_template": value})


def test_a_template_that_is_no_text_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chat_template.jinja"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match="is not UTF-8"):
        read_chat_templates(tmp_path, {})
    path.write_bytes(b" " * (5 * 2**20))
    with pytest.raises(TokenizerError, match="more than a chat_template"):
        read_chat_templates(tmp_path, {})


def test_a_response_template_is_kept_as_json(gpt2_like: Any, tmp_path: Path) -> None:
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    template = {"defaults": {"role": "assistant"}, "fields": {"content": {"open": "<\u2713>"}}}
    config = {"response_template": template, "response_schema": {"type": "object"}}
    write_json(tmp_path, "tokenizer_config.json", config)
    data = plain(build_vocabulary(tmp_path, config={}, n_vocab=700).metadata())
    assert json.loads(data["tokenizer.response_template"]) == template
    assert json.loads(data["tokenizer.response_schema"]) == {"type": "object"}


@pytest.mark.parametrize("value", ["text", 5, ["a"], {"a": "\ud800"}])
def test_a_response_template_of_the_wrong_shape_is_refused(value: Any) -> None:
    path = Path("tokenizer_config.json")
    with pytest.raises(TokenizerError, match="response_template"):
        response_template_metadata({"response_template": value}, path)


def test_both_reach_the_vocabularys_metadata(gpt2_like: Any, tmp_path: Path) -> None:
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path, "generation_config.json", {"top_k": 20, "eos_token_id": 1})
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    data = plain(build_vocabulary(tmp_path, config={}, n_vocab=700).metadata())
    assert data["general.sampling.top_k"] == 20
    assert data["tokenizer.chat_template"] == "{{ messages }}"
