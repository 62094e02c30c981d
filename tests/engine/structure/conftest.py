"""A small vocabulary, for tests that do not bring their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mofa_gguf.engine.structure.constraint import ConstraintFactory
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.support.tiny_vocab import EOS, write_vocab


@pytest.fixture(scope="session")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    """Single bytes, with the marks of some formats as tokens of their own."""
    with VocabFile(write_vocab(tmp_path_factory.mktemp("vocab") / "tiny.gguf")) as file:
        yield file.vocab


@pytest.fixture(scope="session")
def factory(vocab: Vocab) -> ConstraintFactory:
    return ConstraintFactory(vocab, eos=EOS)
