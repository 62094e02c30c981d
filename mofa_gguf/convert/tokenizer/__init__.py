"""A checkpoint's tokenizer -> the vocabulary of a GGUF file, measured against the original.

    sources            which tokenizer the folder holds, opened
    files              bounded reading of it
    hf_json            tokenizer.json, taken apart
    sentencepiece_model, charsmap   tokenizer.model, likewise
    legacy, tekken     vocab.json with merges.txt, vocab.txt, tekken.json, as a tokenizer.json
    bpe, spm, unigram, wordpiece    one module a kind: source -> tokens, scores, types, merges
    added              added tokens and their types
    special, fim       special token ids, add_* flags, end-of-generation ids
    sampling, chat_templates, response_template     generation defaults and templates
    reference          the checkpoint's own tokenizer, run
    battery, agreement the texts, and llama.cpp compared with the reference on them
    pretokenizer       which of llama.cpp's pre-tokenizers splits as the original does
    rare, exactness    further texts, and what of the tokenizer the file must keep
    judgement          what is said about a tokenizer that llama.cpp does not match
    choosing           candidates tried with the real vocabulary, and judged
    vocabulary         what all of these hand on
    build              all of it together

Nothing here knows about model families or tensors.
"""

from __future__ import annotations

from mofa_gguf.convert.tokenizer.agreement import Agreement, Difference, TokenizerMismatch
from mofa_gguf.convert.tokenizer.build import agreement_of, build_vocabulary, check_vocabulary
from mofa_gguf.convert.tokenizer.exactness import Kept
from mofa_gguf.convert.tokenizer.reference import ReferenceTokenizer
from mofa_gguf.convert.tokenizer.vocabulary import TokenType, Vocabulary

__all__ = [
    "Agreement",
    "Difference",
    "Kept",
    "ReferenceTokenizer",
    "TokenType",
    "TokenizerMismatch",
    "Vocabulary",
    "agreement_of",
    "build_vocabulary",
    "check_vocabulary",
]
