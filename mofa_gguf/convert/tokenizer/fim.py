"""Tokens for filling in the middle of a text, as models of code know them."""

from __future__ import annotations

from collections.abc import Mapping

FIM_KEYS = {
    f"fim_{part}": f"tokenizer.ggml.fim_{part}_token_id"
    for part in ("pre", "suf", "mid", "pad", "rep", "sep")
}

# What tokenizer_config.json calls them where it does (CodeLlama's tokenizer), and their texts in
# published vocabularies: those that llama.cpp looks for (src/llama-vocab.cpp), and Mistral's. The
# last three end a generation in llama.cpp, so no more texts are taken for them than it takes.
_FIM: Mapping[str, tuple[str | None, tuple[str, ...]]] = {
    "fim_pre": (
        "prefix_token",
        (
            *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", "\u2581<PRE>"),
            *("<\uff5cfim\u2581begin\uff5c>", "<|code_prefix|>", "<|prefix|>", "[PREFIX]"),
        ),
    ),
    "fim_suf": (
        "suffix_token",
        (
            *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "\u2581<SUF>"),
            *("<\uff5cfim\u2581hole\uff5c>", "<|code_suffix|>", "<|suffix|>", "[SUFFIX]"),
        ),
    ),
    "fim_mid": (
        "middle_token",
        (
            *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", "\u2581<MID>"),
            *("<\uff5cfim\u2581end\uff5c>", "<|code_middle|>", "<|middle|>", "[MIDDLE]"),
        ),
    ),
    "fim_pad": (None, ("<|fim_pad|>", "<fim-pad>", "<fim_pad>")),
    "fim_rep": (None, ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    "fim_sep": (None, ("<|file_sep|>",)),
}
FIM_TEXTS = frozenset(text for _, texts in _FIM.values() for text in texts)


def fim_tokens(
    tokenizer_config: Mapping[str, object], token_ids: Mapping[str, int], n_vocab: int
) -> dict[str, int]:
    """Ids by role ("fim_pre", ...); none unless prefix, suffix and middle are all there."""
    found: dict[str, int] = {}
    for role, (name, texts) in _FIM.items():
        configured = tokenizer_config.get(name) if name is not None else None
        named = configured.get("content") if isinstance(configured, dict) else configured
        for text in (named, *texts):
            if isinstance(text, str) and token_ids.get(text, n_vocab) < n_vocab:
                found[role] = token_ids[text]
                break
    return found if {"fim_pre", "fim_suf", "fim_mid"} <= found.keys() else {}
