"""Which files of a hub repository are fetched."""

from __future__ import annotations

import pytest

from mofa_gguf.store.selection import SelectionError, select_files

SEVERAL = ["README.md", "m-F16.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mmproj-F16.gguf"]
SPLIT = [
    "Q8_0/m-Q8_0-00001-of-00002.gguf",
    "Q8_0/m-Q8_0-00002-of-00002.gguf",
    "m-Q4_0.gguf",
]
CHECKPOINT = [
    ".gitattributes",
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "flax_model.msgpack",
    "generation_config.json",
    "merges.txt",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "onnx/model.onnx",
    "original/consolidated.00.pth",
    "pytorch_model.bin",
    "requirements.txt",
    "modeling_custom.py",
    "tokenizer.json",
    "tokenizer.model",
    "chat_template.jinja",
    "vocab.txt",
    "1_Pooling/config.json",
]


@pytest.mark.parametrize(
    ("names", "choice", "files"),
    [
        (["only.gguf", "README.md"], None, ["only.gguf"]),
        (SEVERAL, None, ["m-Q4_K_M.gguf"]),
        (SEVERAL, "Q8_0", ["m-Q8_0.gguf"]),
        (SEVERAL, "q8_0", ["m-Q8_0.gguf"]),
        (SEVERAL, "m-F16.gguf", ["m-F16.gguf"]),
        (["a.q4_k_m.gguf", "a.q8_0.gguf"], "Q8_0", ["a.q8_0.gguf"]),
        (["a-Q4_K_M.gguf", "a-Q4_K_S.gguf"], None, ["a-Q4_K_M.gguf"]),
        (["a-IQ4_XS.gguf", "a-Q2_K.gguf"], None, ["a-IQ4_XS.gguf"]),
        (["a-imatrix.gguf", "a-Q2_K.gguf"], None, ["a-Q2_K.gguf"]),
        (SPLIT, "Q8_0", SPLIT[:2]),
        (SPLIT, "m-Q8_0-00002-of-00002.gguf", SPLIT[:2]),
        (SPLIT, "Q8_0/m-Q8_0-00001-of-00002.gguf", SPLIT[:2]),
        (SPLIT, None, SPLIT[:2]),
    ],
)
def test_the_gguf_files_that_were_meant_are_chosen(
    names: list[str], choice: str | None, files: list[str]
) -> None:
    selection = select_files(names, choice)
    assert selection.kind == "gguf"
    assert list(selection.files) == files
    assert selection.main == files[0]


def test_a_checkpoint_comes_with_its_configuration_and_without_code_or_pickles() -> None:
    selection = select_files(CHECKPOINT)
    assert selection.kind == "checkpoint"
    assert set(selection.files) == {
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "vocab.txt",
        "1_Pooling/config.json",
    }


def test_weights_are_fetched_after_everything_else() -> None:
    files = select_files(CHECKPOINT).files
    assert [name.endswith(".safetensors") for name in files] == [False] * 9 + [True] * 2


def test_a_quantization_named_for_a_checkpoint_is_what_it_will_be_converted_to() -> None:
    assert select_files(CHECKPOINT, "Q4_0").quantization == "Q4_0"


@pytest.mark.parametrize(
    ("names", "choice", "problem"),
    [
        (SEVERAL, "Q2_K", r"has no Q2_K; it has m-F16\.gguf, m-Q4_K_M\.gguf, m-Q8_0\.gguf$"),
        (SEVERAL, "Q4_K", "has no Q4_K;"),
        (SEVERAL, "K_M", "has no K_M;"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0", "name one: a-Q4_0.gguf, b-Q4_0.gguf"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], None, "several models"),
        (["a.gguf", "b.gguf"], None, "several models"),
        (["m-Q8_0-00001-of-00003.gguf", "config.json"], None, "neither GGUF nor safetensors"),
        (["README.md"], None, "neither GGUF nor safetensors"),
        (["pytorch_model.bin", "config.json"], None, "pickled weights .*can run any code"),
        (["model.safetensors"], None, "no config.json"),
        (CHECKPOINT, "model-Q8_0.gguf", "has no model-Q8_0.gguf"),
        ([], None, "neither"),
    ],
)
def test_an_unclear_or_impossible_choice_says_what_there_is(
    names: list[str], choice: str | None, problem: str
) -> None:
    with pytest.raises(SelectionError, match=problem):
        select_files(names, choice)


def test_a_long_list_of_files_is_cut() -> None:
    with pytest.raises(SelectionError, match="and 28 more"):
        select_files([f"model{n:02}.gguf" for n in range(40)])
