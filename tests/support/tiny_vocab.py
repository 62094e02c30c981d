"""A vocabulary of single bytes, with the marks of some formats as tokens of their own."""

from __future__ import annotations

from pathlib import Path

import gguf

from tests.support.tiny_gguf import byte_tokens

_MARKS = ("<tool_call>", "</tool_call>", "<|START_ACTION|>", "</think>")
EOS = 256
MARKS = {mark: EOS + 1 + n for n, mark in enumerate(_MARKS)}
"""The marks that are tokens, with their ids."""


def write_vocab(path: Path) -> Path:
    """Write the vocabulary as a GGUF file without weights."""
    tokens = [*byte_tokens(), "</s>", *_MARKS]
    kind = gguf.TokenType
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kind.NORMAL] * 256 + [kind.CONTROL] + [kind.USER_DEFINED] * len(_MARKS))
    writer.add_token_merges([f"{tokens[0]} {tokens[1]}"])
    writer.add_bos_token_id(EOS)
    writer.add_eos_token_id(EOS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
