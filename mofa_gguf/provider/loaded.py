"""A loaded model with all that a provider needs of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ParamSpec, TypeVar

from mofa_gguf.chat import ChatTemplate, Shield, cut, default_template
from mofa_gguf.contract import ChatMessage, Tool
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.facts import only_embeds
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.provider.template_source import NO_TEMPLATE, template_source
from mofa_gguf.settings import GGUFConfig
from mofa_gguf.store import ResolvedModel, resolve

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

RESPONSE_KEY = "tokenizer.response_template"


@dataclass(frozen=True)
class Prompt:
    """A rendered conversation and its tokens."""

    text: str
    tokens: list[int]
    raw: bool = False
    """No conversation: whatever follows the text is its continuation, with no template's marks."""


class LoadedModel:
    """Engine, chat template and constraints of one model file. Close it when done."""

    def __init__(self, config: GGUFConfig, resolved: ResolvedModel, engine: Engine) -> None:
        self.config = config
        self.resolved = resolved
        self.engine = engine
        self.template = chat_template(config, engine.model.header, engine.model.vocab)
        # A damaged tokenizer in the file is heard of now, not with the first prompt.
        _ = engine.model.vocab.exact

    @classmethod
    def load(
        cls,
        config: GGUFConfig,
        resolved: ResolvedModel,
        options: EngineOptions,
        *,
        check: Callable[[], None] = lambda: None,
    ) -> LoadedModel:
        """Load a file that :func:`find_file` found; blocks.

        ``check`` is called often meanwhile, and what it raises ends the loading.
        """
        engine = Engine.load(resolved.path, options, progress=lambda _share: check())
        try:
            return cls(config, resolved, engine)
        except BaseException:
            engine.close()
            raise

    async def apart(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call on a thread what reads the model's memory, which stays there until that is done.

        So it does when nobody waits for the result any more, and when the model is closed
        meanwhile. Raises EngineClosed where it was closed before.
        """

        def call() -> T:
            with self.engine.kept():
                return function(*args, **kwargs)

        return await asyncio.to_thread(call)

    @property
    def header(self) -> GGUFHeader:
        """What the file says of itself."""
        return self.engine.model.header

    @property
    def vocab(self) -> Vocab:
        """The model's tokenizer."""
        return self.engine.model.vocab

    @cached_property
    def constraints(self) -> ConstraintFactory:
        """Compiles schemas and grammars for this vocabulary."""
        return ConstraintFactory(self.vocab, eos=sorted(self.engine.model.eog_ids))

    @cached_property
    def control_texts(self) -> frozenset[str]:
        """The spellings of the vocabulary's control tokens."""
        return frozenset(self.vocab.control_texts())

    @cached_property
    def tag_texts(self) -> frozenset[str]:
        """The spellings of its user-defined tags, such as ``<tool_call>``."""
        return frozenset(self.vocab.tag_texts())

    @cached_property
    def shield(self) -> Shield:
        """Keeps messages from forging this vocabulary's control tokens."""
        return Shield(self.control_texts, self.tag_texts)

    @cached_property
    def mark_tokens(self) -> dict[str, int]:
        """Those marks of calls and reasoning that are tokens of the vocabulary, with their ids."""
        marks = self.template.call_marks
        found = {}
        for special in self.control_texts | self.tag_texts:
            if len(special) < 2 or not any(special in mark for mark in marks):
                continue
            tokens = self.vocab.tokenize(special, parse_special=True)
            # The end of a generation is never part of it.
            if len(tokens) == 1 and tokens[0] not in self.engine.model.eog_ids:
                found[special] = tokens[0]
        return found

    def prompt(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] | None,
        arguments: dict[str, Any],
    ) -> Prompt:
        """The conversation through the model's template, as text and tokens.

        What a message says is never read as a control token. A model that wants bos in front gets
        one, unless its template wrote it.
        """
        marked = self.template.render(self.shield.messages(messages), tools=tools, **arguments)
        tokens: list[int] = []
        for n, piece in enumerate(cut(marked)):
            tokens += self.vocab.tokenize(piece, parse_special=True, continues=n > 0)
        text = "".join(cut(marked))
        bos = self.vocab.bos
        if self.vocab.add_bos and bos is not None and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return Prompt(text, tokens)

    def embedding_tokens(self, text: str) -> list[int]:
        """Tokens of a text to embed, cut to the model's length if the config says so.

        A cut keeps the closing token ([SEP], eos) that the model expects.
        """
        tokens = self.vocab.tokenize(text, add_special=True) or self._something()
        limit = self.engine.n_embedding_max
        if len(tokens) <= limit or self.config.embedding_overflow == "error":
            return tokens
        bare = self.vocab.tokenize(text)
        n_closing = _length_of_ending(tokens, bare)
        return [*tokens[: limit - n_closing], *tokens[len(tokens) - n_closing :]]

    def _something(self) -> list[int]:
        """One token for an empty text, for models that put nothing around it."""
        for token in (self.vocab.bos, self.vocab.eos):
            if token is not None:
                return [token]
        return self.vocab.tokenize(" ") or [0]

    def close(self) -> None:
        """Free the model; returns when that is done."""
        self.engine.close()


def find_file(config: GGUFConfig, *, check: Callable[[], None] = lambda: None) -> ResolvedModel:
    """The model's file, converted or downloaded first if need be; blocks.

    ``check`` is called often meanwhile, and what it raises ends the work.
    """
    return _find(config.model, config, check)


def find_draft(
    config: GGUFConfig, *, check: Callable[[], None] = lambda: None
) -> ResolvedModel | None:
    """The draft model's file, as :func:`find_file`; None where none is configured."""
    return None if config.draft_model is None else _find(config.draft_model, config, check)


def _find(model: str, config: GGUFConfig, check: Callable[[], None]) -> ResolvedModel:
    return resolve(
        model,
        cache_dir=config.cache_dir,
        quantization=config.quantization,
        offline=config.offline,
        progress=lambda _report: check(),
    )


def chat_template(config: GGUFConfig, header: GGUFHeader, vocab: Vocab) -> ChatTemplate:
    """The template of the config, else the model's own, else the documented default."""

    def text(key: str, token: int | None) -> str:
        # Without the key llama.cpp assumes an id, which may be any word's.
        return "" if token is None or key not in header.metadata else vocab.text(token)

    answers = header.metadata.get(RESPONSE_KEY)
    source = template_source(config, header.metadata)
    if source is None and not only_embeds(header):
        logger.warning("%s: %s", header.path.name, NO_TEMPLATE)
    return ChatTemplate(
        source or default_template(),
        bos_token=text("tokenizer.ggml.bos_token_id", vocab.bos),
        eos_token=text("tokenizer.ggml.eos_token_id", vocab.eos),
        response_template=answers if isinstance(answers, str) else None,
    )


def _length_of_ending(tokens: Sequence[int], bare: Sequence[int]) -> int:
    """How many tokens the model puts behind a text whose own tokens are ``bare``."""
    for start in range(len(tokens) - len(bare) + 1):
        if list(tokens[start : start + len(bare)]) == list(bare):
            return len(tokens) - len(bare) - start
    return 0
