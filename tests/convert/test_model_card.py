"""The front matter of README.md goes into the file's general.* keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert import convert
from mofa_gguf.convert.model_card import read_model_card
from mofa_gguf.engine.files.header import read_header
from tests.convert.makers import write_checkpoint

CARD = """---
license: other
license_name: acme-community
license_link: https://example.org/license
author: Ada
language:
  - en
  - no
tags: [chat, "small"]
pipeline_tag: text-generation
base_model:
  - acme/Acme-7B
  - local-thing
datasets: acme/dialogues
---
# A model
"""


def card_of(folder: Path, text: str | bytes) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return {key: value.data for key, value in read_model_card(folder).metadata.items()}


def test_what_the_card_says_is_in_the_file(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    plain = convert(source, tmp_path / "plain.gguf", "F32", verify=False).output
    (source / "README.md").write_text(CARD)
    report = convert(source, tmp_path / "x.gguf", "F32", threads=1)
    found = read_header(report.output).metadata
    expected = {
        "general.license": "other",
        "general.license.name": "acme-community",
        "general.license.link": "https://example.org/license",
        "general.author": "Ada",
        "general.languages": ["en", "no"],
        "general.tags": ["chat", "small", "text-generation"],
        "general.base_model.count": 2,
        "general.base_model.0.name": "Acme-7B",
        "general.base_model.0.organization": "acme",
        "general.base_model.0.repo_url": "https://huggingface.co/acme/Acme-7B",
        "general.base_model.1.name": "local-thing",
        "general.dataset.count": 1,
        "general.dataset.0.name": "dialogues",
        "general.dataset.0.organization": "acme",
        "general.dataset.0.repo_url": "https://huggingface.co/datasets/acme/dialogues",
    }
    assert {key: value for key, value in found.items() if key in expected} == expected
    without = {key for key in found if key not in read_header(plain).metadata}
    assert without == set(expected)
    assert report.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "# No front matter\n",
        "---\nno end\n",
        "---\n- a list\n---\n",
        "---\n---\n",
        "---\nlicense: {a: 1}\ntags: 7\nlanguage: [[en], {}]\nbase_model: [null, '']\n---\n",
        b"\xff\xfe---\nlicense: mit\n",
        b"",
    ],
)
def test_a_card_that_says_nothing_adds_nothing(text: str | bytes, tmp_path: Path) -> None:
    assert card_of(tmp_path, text) == {}


def test_several_licences_and_line_ends_of_windows(tmp_path: Path) -> None:
    text = "---\r\nlicense: [mit, apache-2.0]\r\nlanguage: de\r\n---\r\n"
    assert card_of(tmp_path, text) == {
        "general.license": "mit, apache-2.0",
        "general.languages": ["de"],
    }


@pytest.mark.parametrize(
    "matter",
    [
        "license: [",
        "license: !!python/object/apply:os.system ['true']",
        "a: &a [x]\nb: &b [*a, *a]\nlicense: {{{",
        "x: " + "[" * 5000,
        "license: \x00",
    ],
)
def test_a_card_that_cannot_be_read_is_a_warning(matter: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "tiny")
    (source / "README.md").write_text(f"---\n{matter}\n---\n")
    report = convert(source, tmp_path / "x.gguf", "F32", dry_run=True)
    assert [warning[:28] for warning in report.warnings] == ["the front matter of README.m"]


def test_what_a_card_repeats_without_end_stays_small(tmp_path: Path) -> None:
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12))
    bomb = f"---\nl0: &l0 [x, x]\n{levels}\ntags: *l11\nlicense: mit\n---\n"
    assert card_of(tmp_path, bomb) == {"general.license": "mit"}
    assert card_of(tmp_path, "---\ntags: [" + "x, " * 1000 + "y]\n---\n") == {"general.tags": ["x"]}


def test_a_card_outside_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text(CARD)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "README.md").symlink_to(tmp_path / "outside.md")
    assert len(read_model_card(folder).metadata) == 0
