"""build_vocabulary: a checkpoint folder's tokenizer, read, measured and ready for the file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.agreement import Agreement, compare
from mofa_gguf.convert.tokenizer.battery import FULL, QUICK, BatteryText
from mofa_gguf.convert.tokenizer.chat_templates import chat_template_metadata, read_chat_templates
from mofa_gguf.convert.tokenizer.exactness import Exactness, measure_exactness
from mofa_gguf.convert.tokenizer.files import read_json
from mofa_gguf.convert.tokenizer.judgement import Choice, judge
from mofa_gguf.convert.tokenizer.reference import HuggingFaceReference
from mofa_gguf.convert.tokenizer.response_template import response_template_metadata
from mofa_gguf.convert.tokenizer.sampling import read_sampling_defaults
from mofa_gguf.convert.tokenizer.sources import TokenizerSource, open_source
from mofa_gguf.convert.tokenizer.special import (
    SpecialSources,
    SpecialTokens,
    complete_for_kind,
    read_special_tokens,
)
from mofa_gguf.convert.tokenizer.vocabulary import Vocabulary
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile

logger = logging.getLogger(__name__)

# Loading a vocabulary of 128,000 tokens takes llama.cpp half a second.
_N_FULL_TRIES = 4


def build_vocabulary(
    folder: Path,
    *,
    config: Mapping[str, object],
    n_vocab: int,
    allow_mismatch: bool = False,
) -> Vocabulary:
    """The vocabulary of the checkpoint in ``folder``.

    ``config`` is its config.json; ``n_vocab`` the number of rows of its embedding matrix, which is
    how many tokens the file will have. llama.cpp is given the result and compared with the
    checkpoint's own tokenizer; differences that nobody can explain are refused unless
    ``allow_mismatch``, which turns them into a warning.

    Raises TokenizerError when the tokenizer is missing, malformed or not expressible, and its
    subclass TokenizerMismatch when llama.cpp would tokenize differently.
    """
    folder = Path(folder)
    tokenizer_config = read_json(folder, "tokenizer_config.json")
    generation_config = read_json(folder, "generation_config.json")
    source = open_source(folder, tokenizer_config=tokenizer_config, n_vocab=n_vocab)
    special = _special_tokens(
        source,
        SpecialSources(
            folder,
            tokenizer_config=tokenizer_config,
            special_tokens_map=read_json(folder, "special_tokens_map.json"),
            config=config,
            generation_config=generation_config,
        ),
        n_vocab=n_vocab,
    )

    metadata = Metadata()
    metadata.update(source.tables.metadata())
    metadata.update(special.metadata())
    choice = _choose(source, metadata)
    metadata.string("tokenizer.ggml.pre", choice.pre_tokenizer)
    metadata.update(choice.exactness.metadata)
    templates = read_chat_templates(folder, tokenizer_config)
    metadata.update(chat_template_metadata(templates))
    path = folder / "tokenizer_config.json"
    metadata.update(response_template_metadata(tokenizer_config, path))
    path = folder / "generation_config.json"
    metadata.update(read_sampling_defaults(generation_config, path))

    warnings = [*source.warnings, *source.tables.warnings, *special.warnings]
    warnings += judge(choice, folder, allow_mismatch=allow_mismatch)
    return Vocabulary(
        kind=source.tables.kind,
        pre_tokenizer=choice.pre_tokenizer,
        n_tokens=n_vocab,
        reference=source.reference,
        agreement=choice.agreement,
        kept=choice.exactness.kept,
        warnings=tuple(warnings),
        _metadata=metadata,
    )


def check_vocabulary(
    gguf_path: Path | str, vocabulary: Vocabulary, *, natively: bool = False
) -> Agreement:
    """Load the vocabulary of a written file with llama.cpp and compare it on the whole battery.

    With ``natively``, llama.cpp alone is compared, as other programs read the file; otherwise what
    the file keeps of the checkpoint's tokenizer takes part. Raises ModelFileError when the file is
    damaged or llama.cpp refuses it.
    """
    with VocabFile(gguf_path, natively=natively) as file:
        return agreement_of(file.vocab.tokenize, file.vocab, vocabulary)


def agreement_of(
    tokenize: Callable[[str], list[int]], vocab: Vocab, vocabulary: Vocabulary
) -> Agreement:
    """Compare a way to ``tokenize`` with the loaded ``vocab`` on the whole battery."""
    return compare(
        tokenize,
        vocabulary.reference,
        FULL,
        kind=vocabulary.kind,
        pre_tokenizer=vocabulary.pre_tokenizer,
        spelling=vocab.text,
    )


def _special_tokens(
    source: TokenizerSource, sources: SpecialSources, *, n_vocab: int
) -> SpecialTokens:
    surroundings = source.reference.surroundings() if source.runs_post_processor else None
    special = read_special_tokens(
        sources,
        token_ids=source.token_ids,
        n_vocab=n_vocab,
        surroundings=surroundings,
        default_add=source.default_add,
        known_ids=source.known_ids,
    )
    return complete_for_kind(special, source.tables, surroundings, sources.folder)


def _choose(source: TokenizerSource, metadata: Metadata) -> Choice:
    """Try pre-tokenizers with the real vocabulary, best first; the first that agrees wins."""
    best: Choice | None = None
    with tempfile.TemporaryDirectory(prefix="mofa-gguf-") as temporary:
        path = Path(temporary) / "vocabulary.gguf"
        for name in _candidates(source, Path(temporary)):
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
        return ["default"]
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


def _measure(path: Path, source: TokenizerSource, name: str, *, quickly: bool) -> Choice:
    """The whole battery, unless ``quickly`` and the first texts already speak against it."""
    kind = source.tables.kind

    def over(vocab: Vocab, texts: tuple[BatteryText, ...]) -> Agreement:
        return compare(
            vocab.tokenize_natively,
            source.reference,
            texts,
            kind=kind,
            pre_tokenizer=name,
            spelling=vocab.text,
        )

    try:
        with VocabFile(path, natively=True) as file:
            if quickly:
                first = over(file.vocab, QUICK)
                if not first.acceptable:
                    return Choice(name, first, Exactness())
            whole = over(file.vocab, FULL)
            exactness = measure_exactness(
                file.vocab, source.reference, source.document, kind=kind, agrees=whole.complete
            )
            return Choice(name, whole, exactness)
    except EngineError as error:
        raise TokenizerError(f"llama.cpp refuses the vocabulary ({error})") from error


def _quality(agreement: Agreement) -> tuple[float, float]:
    n = agreement.n_texts
    return (-agreement.n_unexplained / n, agreement.n_agree / n)
