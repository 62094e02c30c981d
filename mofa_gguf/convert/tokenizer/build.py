"""build_vocabulary: a checkpoint folder's tokenizer, read, measured and ready for the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.agreement import Agreement, compare
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.chat_templates import chat_template_metadata, read_chat_templates
from mofa_gguf.convert.tokenizer.choosing import ONLY, choose, measure_kept
from mofa_gguf.convert.tokenizer.exactness import is_kept_in_any_case, keeping_all
from mofa_gguf.convert.tokenizer.files import read_json
from mofa_gguf.convert.tokenizer.judgement import judge
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
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile


def build_vocabulary(
    folder: Path,
    *,
    config: Mapping[str, object],
    n_vocab: int,
    allow_mismatch: bool = False,
    is_read_back: bool = False,
) -> Vocabulary:
    """The vocabulary of the checkpoint in ``folder``.

    ``config`` is its config.json; ``n_vocab`` the number of rows of its embedding matrix, which is
    how many tokens the file will have. llama.cpp is given the result and compared with the
    checkpoint's own tokenizer; differences that nobody can explain are refused unless
    ``allow_mismatch``, which turns them into a warning. ``is_read_back`` promises that llama.cpp
    will read the finished file: where the comparison decides nothing about it, it is left to
    :attr:`Vocabulary.judge_on`, and llama.cpp reads the vocabulary once instead of twice.

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

    warnings = [*source.warnings, *source.tables.warnings, *special.warnings]
    metadata = Metadata()
    metadata.update(source.tables.metadata())
    metadata.update(special.metadata())
    agreement: Agreement | None = None
    if is_read_back and is_kept_in_any_case(source.tables.kind, source.document):
        pre_tokenizer, exactness = ONLY, keeping_all(source.reference, source.document)
    else:
        choice = choose(source, metadata)
        pre_tokenizer, agreement, exactness = choice
        warnings += judge(choice, folder, allow_mismatch=allow_mismatch)
    metadata.string("tokenizer.ggml.pre", pre_tokenizer)
    metadata.update(exactness.metadata)
    metadata.update(_usage(folder, tokenizer_config, generation_config))

    def judge_on(vocab: Vocab) -> tuple[Agreement, list[str]]:
        found = measure_kept(vocab, source, exactness)
        return found.agreement, judge(found, folder, allow_mismatch=allow_mismatch)

    return Vocabulary(
        kind=source.tables.kind,
        pre_tokenizer=pre_tokenizer,
        n_tokens=n_vocab,
        reference=source.reference,
        agreement=agreement,
        judge_on=judge_on if agreement is None else None,
        kept=exactness.kept,
        warnings=tuple(warnings),
        _metadata=metadata,
    )


def _usage(
    folder: Path, tokenizer_config: Mapping[str, object], generation_config: Mapping[str, object]
) -> Metadata:
    """How conversations are written and answers drawn."""
    metadata = Metadata()
    templates = read_chat_templates(folder, tokenizer_config)
    metadata.update(chat_template_metadata(templates))
    path = folder / "tokenizer_config.json"
    metadata.update(response_template_metadata(tokenizer_config, path))
    path = folder / "generation_config.json"
    metadata.update(read_sampling_defaults(generation_config, path))
    return metadata


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
