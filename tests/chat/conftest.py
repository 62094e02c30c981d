"""Small templates of our own, one of each kind, and a vocabulary for grammars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from mofa_gguf.chat import ChatTemplate
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.support.tiny_vocab import EOS, write_vocab

TEMPLATES = Path(__file__).parent.parent / "data" / "chat" / "templates"
Make = Callable[[str], ChatTemplate]


@pytest.fixture
def make() -> Make:
    """Compiles a template with known tokens and a clock that stands still."""

    def make_template(source: str) -> ChatTemplate:
        return ChatTemplate(
            source,
            bos_token="<s>",
            eos_token="</s>",
            now=lambda: datetime(2025, 7, 4, 12, 30, 15),
        )

    return make_template


@pytest.fixture
def hermes(make: Make) -> ChatTemplate:
    """ChatML with calls between <tool_call> tags; arguments as objects."""
    return make((TEMPLATES / "chatml_with_tools.jinja").read_text("utf-8"))


@pytest.fixture
def llama(make: Make) -> ChatTemplate:
    """Calls as the whole answer; one at a time."""
    return make((TEMPLATES / "json_calls.jinja").read_text("utf-8"))


@pytest.fixture
def mistral(make: Make) -> ChatTemplate:
    """Calls in a list behind [TOOL_CALLS]; ids of nine letters."""
    return make((TEMPLATES / "listed_calls.jinja").read_text("utf-8"))


@pytest.fixture
def strict(make: Make) -> ChatTemplate:
    """No system role, roles must alternate, no tools."""
    return make((TEMPLATES / "strict_turns.jinja").read_text("utf-8"))


@pytest.fixture(scope="session")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    """Single bytes, with the marks of some formats as tokens of their own."""
    with VocabFile(write_vocab(tmp_path_factory.mktemp("vocab") / "tiny.gguf")) as file:
        yield file.vocab


@pytest.fixture(scope="session")
def factory(vocab: Vocab) -> ConstraintFactory:
    return ConstraintFactory(vocab, eos=EOS)
