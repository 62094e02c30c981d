"""What is said about a tokenizer that llama.cpp alone does not match, or whether it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mofa_gguf.convert.tokenizer.agreement import Agreement, TokenizerMismatch
from mofa_gguf.convert.tokenizer.exactness import Exactness, Kept

_KEPT = {
    Kept.NOTHING: "the file cannot keep the tokenizer, so this package differs there too",
    Kept.NORMALIZER: "the file names the Unicode form, so that this package tokenizes exactly; "
    "other programs will differ there",
    Kept.TOKENIZER: "the file keeps the tokenizer, so that this package tokenizes exactly; "
    "other programs will differ there",
}


class Choice(NamedTuple):
    """A pre-tokenizer, how llama.cpp agreed with it, and what the file must hold besides."""

    pre_tokenizer: str
    agreement: Agreement
    exactness: Exactness


def judge(choice: Choice, folder: Path, *, allow_mismatch: bool) -> list[str]:
    """Warnings about an imperfect agreement; TokenizerMismatch where it must not pass."""
    agreement, exactness = choice.agreement, choice.exactness
    consequence = _KEPT[exactness.kept]
    if not agreement.complete:
        if not (agreement.acceptable or allow_mismatch):
            raise TokenizerMismatch(folder, choice.pre_tokenizer, agreement)
        first = agreement.first_differences[0]
        return [
            f"llama.cpp alone does not tokenize every text as the checkpoint's tokenizer does: "
            f"{agreement.summary()} ({first.cause or 'unexplained'}; first: {first}); {consequence}"
        ]
    if exactness.first is not None:
        n_differing = exactness.n_rare - exactness.n_rare_agree
        where = (
            "around added tokens that take white space with them"
            if exactness.first.parse_special
            else "on rare characters or around added tokens"
        )
        return [
            f"llama.cpp alone tokenizes {n_differing} of {exactness.n_rare} rare texts otherwise "
            f"than the checkpoint's tokenizer, {where}; {consequence}"
        ]
    return []
