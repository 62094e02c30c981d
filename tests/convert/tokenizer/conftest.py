"""Tokenizers that these tests share: small ones trained here, published ones unpacked."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert.tokenizer import Vocabulary, build_vocabulary
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from tests.convert.tokenizer.makers import (
    gpt2_splitting,
    n_rows,
    train_byte_level,
    train_sentencepiece,
    train_wordpiece,
)


@pytest.fixture(scope="session")
def gpt2_like() -> Any:
    """Trained once: GPT-2's splitting."""
    return train_byte_level(gpt2_splitting())


@pytest.fixture(scope="session")
def smollm_like() -> Any:
    """Trained once: SmolLM2's splitting, every digit alone."""
    return train_byte_level(gpt2_splitting(digits=True))


@pytest.fixture(scope="session")
def bert_like() -> Any:
    """Trained once: an uncased BERT."""
    return train_wordpiece()


@pytest.fixture(scope="session")
def llama_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SentencePiece BPE tokenizer.model, as Llama 2's."""
    folder = tmp_path_factory.mktemp("llama-like")
    train_sentencepiece(folder, kind="bpe")
    return folder


@pytest.fixture(scope="session")
def real_tokenizer(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Gives a folder with a real model's tokenizer files, unpacked."""

    def unpack(name: str, tokenizer_json: str = "tokenizer.json") -> Path:
        source = shared_data / "tokenizers" / name
        folder = tmp_path_factory.mktemp(name)
        for path in source.iterdir():
            if path.is_file() and path.suffix != ".gz":
                shutil.copyfile(path, folder / path.name)
        packed = source / f"{tokenizer_json}.gz"
        if packed.exists():
            (folder / "tokenizer.json").write_bytes(gzip.decompress(packed.read_bytes()))
        return folder

    return unpack


@pytest.fixture(scope="session")
def built(real_tokenizer: Callable[..., Path]) -> Callable[..., Vocabulary]:
    """Gives a published tokenizer's vocabulary, built once."""

    @cache
    def build(name: str, tokenizer_json: str, without: str) -> Vocabulary:
        folder = real_tokenizer(name, tokenizer_json)
        if without:
            (folder / without).unlink()
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return build_vocabulary(folder, config=config, n_vocab=n_rows(folder, config))

    def build_once(
        name: str, tokenizer_json: str = "tokenizer.json", without: str = ""
    ) -> Vocabulary:
        return build(name, tokenizer_json, without)

    return build_once


@pytest.fixture(scope="session")
def written(
    built: Callable[..., Vocabulary], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Gives a vocabulary-only GGUF file of a published tokenizer, written once."""
    paths: dict[int, Path] = {}

    def write(*case: str) -> Path:
        vocabulary = built(*case)
        if id(vocabulary) not in paths:
            path = tmp_path_factory.mktemp("written") / "vocabulary.gguf"
            metadata = vocabulary.metadata()
            write_vocabulary_file(path, metadata, pre_tokenizer=vocabulary.pre_tokenizer)
            paths[id(vocabulary)] = path
        return paths[id(vocabulary)]

    return write
