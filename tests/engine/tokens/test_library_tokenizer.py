"""A tokenizer of the `tokenizers` library is loaded once for all who have the same text."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from mofa_gguf.engine.tokens import library_tokenizer as module
from mofa_gguf.engine.tokens.kept_tokenizer import KeptTokenizer
from mofa_gguf.engine.tokens.library_tokenizer import (
    LibraryFailure,
    LibraryTokenizer,
    library_tokenizer,
)

TEXT = "one <end> two <tool> three"
WORDS = {"one": 0, "two": 1, "three": 2, "<": 3, ">": 4, "end": 5, "tool": 6, "?": 7}
END, TOOL = 8, 9
PLAIN = [0, 3, 5, 4, 1, 3, 6, 4, 2]


def written(**more: Any) -> str:
    """A tokenizer.json with a special <end> and a <tool> that is not called special."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken("<end>", normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return json.dumps({**json.loads(tokenizer.to_str()), **more})


def with_control(*spellings: str, text: str | None = None) -> LibraryTokenizer:
    def control_of(added: dict[int, Any]) -> Collection[str]:
        return {token.content for token in added.values() if token.content in spellings}

    return library_tokenizer(text or written(), control_of)


def kept(text: str, *control: int, path: str = "x.gguf") -> KeptTokenizer:
    return KeptTokenizer(
        text, Path(path), n_tokens=10, is_control=lambda token: token in control, natively=list
    )


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were loaded."""
    texts: list[str] = []
    original = module._load

    def load(text: str) -> Any:
        texts.append(text)
        return original(text)

    monkeypatch.setattr(module, "_load", load)
    return texts


def test_one_text_is_loaded_once(loads: list[str]) -> None:
    first, second = with_control("<end>"), with_control("<end>")
    assert first is second
    assert len(loads) == 1


def test_another_text_is_another_tokenizer(loads: list[str]) -> None:
    first, second = (
        with_control("<end>"),
        with_control(
            "<end>", text=written(model={**json.loads(written())["model"], "unk_token": "one"})
        ),
    )
    assert first is not second
    assert len(loads) == 2


def test_what_the_text_calls_special_anyway_makes_no_difference(loads: list[str]) -> None:
    tokenizers = {with_control(), with_control("<end>"), with_control("<end>", "<unheard>")}
    assert len(tokenizers) == len(loads) == 1


def test_who_has_other_control_tokens_has_a_tokenizer_of_its_own() -> None:
    plain, controlled = with_control("<end>"), with_control("<end>", "<tool>")
    assert plain is not controlled
    for _ in range(2):  # the second of each kind shares
        assert plain is with_control()
        assert controlled is with_control("<tool>")
    assert plain.encode(TEXT) == [0, 3, 5, 4, 1, TOOL, 2]
    assert controlled.encode(TEXT) == PLAIN
    for tokenizer in (plain, controlled):
        assert tokenizer.encode(TEXT, parse_special=True) == [0, END, 1, TOOL, 2]


def test_it_is_gone_with_the_last_who_holds_it(loads: list[str]) -> None:
    first, second = with_control(), with_control()
    del first
    gc.collect()
    assert second is with_control()
    del second
    gc.collect()
    with_control()
    assert len(loads) == 2


def test_models_that_keep_the_same_tokenizer_share_it(loads: list[str]) -> None:
    text = written()
    models = [kept(text, END, TOOL, path=f"{n}.gguf") for n in range(3)]
    assert len(loads) == 1
    for model in models:
        assert model.tokenize(TEXT, parse_special=False, continues=False) == PLAIN


def test_a_text_that_cannot_be_loaded_is_tried_again_and_blocks_nobody() -> None:
    for _ in range(2):
        with pytest.raises(LibraryFailure):
            with_control(text="{}")
    assert with_control().encode("one") == [0]


def test_sharing_threads_do_not_disturb_each_others_special_tokens() -> None:
    text = written()
    models = [kept(text, END, TOOL, path=f"{n}.gguf") for n in range(2)]
    together = threading.Barrier(4)
    read = [0, END, 1, TOOL, 2]

    def work(n: int) -> bool:
        together.wait()
        parsed, model = bool(n % 2), models[n // 2]
        return all(
            model.tokenize(TEXT + " one" * i, parse_special=parsed, continues=False)
            == (read if parsed else PLAIN) + [0] * i
            for i in range(300)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_threads_that_load_at_once_load_once(loads: list[str]) -> None:
    together = threading.Barrier(4)

    def load(_: int) -> LibraryTokenizer:
        together.wait()
        return with_control("<tool>")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(load, range(4)))
    assert len(set(found)) == len(loads) == 1
