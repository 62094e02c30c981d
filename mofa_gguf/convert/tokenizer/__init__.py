"""A checkpoint's tokenizer -> the vocabulary of a GGUF file, measured against the original.

    files      bounded reading of what lies in the checkpoint folder
    hf_json    tokenizer.json, taken apart; sentencepiece_model: tokenizer.model, likewise
    sources    which of these the folder holds
    bpe, spm, unigram, wordpiece    one module a kind: source -> tokens, scores, types, merges
    special    special token ids, add_* flags, end-of-generation ids
    sampling, chat_templates        generation defaults and templates
    reference  the checkpoint's own tokenizer, run
    battery    the texts; agreement: compare llama.cpp with the reference on them
    pretokenizer                    which of llama.cpp's pre-tokenizers splits as the original does
    build      all of it together: build_vocabulary

Nothing here knows about model families or tensors.
"""

from __future__ import annotations

from mofa_gguf.convert.tokenizer.agreement import Agreement, Difference, TokenizerMismatch
from mofa_gguf.convert.tokenizer.build import build_vocabulary, check_vocabulary
from mofa_gguf.convert.tokenizer.reference import ReferenceTokenizer
from mofa_gguf.convert.tokenizer.vocabulary import TokenType, Vocabulary

__all__ = [
    "Agreement",
    "Difference",
    "ReferenceTokenizer",
    "TokenType",
    "TokenizerMismatch",
    "Vocabulary",
    "build_vocabulary",
    "check_vocabulary",
]
