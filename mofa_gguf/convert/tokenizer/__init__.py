"""A checkpoint's tokenizer -> the vocabulary of a GGUF file, measured against the original.

    sources            which tokenizer the folder holds, opened
    files              bounded reading of it
    hf_json            tokenizer.json, taken apart
    sentencepiece_model, charsmap   tokenizer.model, likewise
    legacy             vocab.json with merges.txt, and vocab.txt, as a tokenizer.json
    bpe, spm, unigram, wordpiece    one module a kind: source -> tokens, scores, types, merges
    added              added tokens and their types
    special            special token ids, add_* flags, end-of-generation ids
    sampling, chat_templates        generation defaults and templates
    reference          the checkpoint's own tokenizer, run
    battery, agreement the texts, and llama.cpp compared with the reference on them
    pretokenizer       which of llama.cpp's pre-tokenizers splits as the original does
    vocabulary         what all of these hand on
    build              all of it together

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
