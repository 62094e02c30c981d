"""Which pre-tokenizer the file names: tried with the real vocabulary, and compared."""

from __future__ import annotations

import logging
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.agreement import Agreement, compare
from mofa_gguf.convert.tokenizer.battery import FULL, QUICK, BatteryText
from mofa_gguf.convert.tokenizer.exactness import (
    Exactness,
    measure_exactness,
    try_rare_texts,
)
from mofa_gguf.convert.tokenizer.judgement import Choice
from mofa_gguf.convert.tokenizer.reference import HuggingFaceReference
from mofa_gguf.convert.tokenizer.sources import TokenizerSource
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile

logger = logging.getLogger(__name__)

ONLY = "default"
"""The pre-tokenizer of kinds that have none."""
# Loading a vocabulary of 128,000 tokens takes llama.cpp half a second.
_N_FULL_TRIES = 4


def choose(source: TokenizerSource, metadata: Metadata) -> Choice:
    """Try pre-tokenizers with the real vocabulary, best first; the first that agrees wins.

    ``metadata`` are the tables and special tokens. Raises TokenizerError where llama.cpp refuses
    them.
    """
    from mofa_gguf.convert.scratch import scratch_folder

    best: Choice | None = None
    with scratch_folder() as folder:
        path = folder / "vocabulary.gguf"
        for name in _candidates(source, folder):
            write_vocabulary_file(path, metadata, pre_tokenizer=name)
            choice = _measure(path, source, name, quickly=best is not None)
            if best is None or _quality(choice.agreement) > _quality(best.agreement):
                best = choice
            if choice.agreement.complete:
                break
    assert best is not None
    return best


def _candidates(source: TokenizerSource, folder: Path) -> list[str]:
    if source.tables.kind != "bpe":
        return [ONLY]
    from mofa_gguf.convert.tokenizer.pretokenizer import rank

    assert isinstance(source.reference, HuggingFaceReference)
    assert source.document is not None
    ranked = rank(source.document, source.reference, folder)
    if not ranked:
        raise TokenizerError(f"{source.document.path}: llama.cpp knows none of the pre-tokenizers")
    logger.info("pre-tokenizers on the probe: %s", ranked[:_N_FULL_TRIES])
    if ranked[0].n_unexplained == 0:
        return [ranked[0].name]
    return [candidate.name for candidate in ranked[:_N_FULL_TRIES]]


def measure_kept(vocab: Vocab, source: TokenizerSource, kept: Exactness) -> Choice:
    """The same for a kind that has one pre-tokenizer and whose tokenizer is ``kept`` anyway.

    Nothing in the file depends on it, so ``vocab`` may be that of the finished file.
    """
    agreement = _compare(vocab, source, ONLY, FULL)
    if agreement.complete:
        kept = kept.with_rare(try_rare_texts(vocab, source.reference, source.document))
    return Choice(ONLY, agreement, kept)


def _measure(path: Path, source: TokenizerSource, name: str, *, quickly: bool) -> Choice:
    """The whole battery, unless ``quickly`` and the first texts already speak against it."""
    try:
        with VocabFile(path, natively=True) as file:
            if quickly:
                first = _compare(file.vocab, source, name, QUICK)
                if not first.acceptable:
                    return Choice(name, first, Exactness())
            whole = _compare(file.vocab, source, name, FULL)
            exactness = measure_exactness(
                file.vocab,
                source.reference,
                source.document,
                kind=source.tables.kind,
                agrees=whole.complete,
            )
            return Choice(name, whole, exactness)
    except EngineError as error:
        raise TokenizerError(f"llama.cpp refuses the vocabulary ({error})") from error


def _compare(
    vocab: Vocab, source: TokenizerSource, name: str, texts: tuple[BatteryText, ...]
) -> Agreement:
    return compare(
        vocab.tokenize_natively,
        source.reference,
        texts,
        kind=source.tables.kind,
        pre_tokenizer=name,
        spelling=vocab.text,
    )


def _quality(agreement: Agreement) -> tuple[float, float]:
    n = agreement.n_texts
    return (-agreement.n_unexplained / n, agreement.n_agree / n)
