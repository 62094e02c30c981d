"""TokenTable: every id below the embedding's rows gets a text, a score and a type."""

from __future__ import annotations

import pytest

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.vocabulary import TokenLists, TokenTable, TokenType

ENTRIES = [(2, "c"), (0, "a"), (2, "d"), (9, "beyond")]


def filled(*, together: bool) -> TokenLists:
    """Of four rows; id 2 is there twice, 1 and 3 never, and 9 is an added token without a row."""
    table = TokenTable(4, added=[9])
    if together:
        table.place_all(ENTRIES, TokenType.NORMAL)
    else:
        for token, text in ENTRIES:
            table.place(token, text, TokenType.NORMAL)
    assert "beyond" in str(table.finish() and table.warnings)
    return table.finish()


def test_many_tokens_placed_together_are_as_those_placed_one_by_one() -> None:
    assert filled(together=True) == filled(together=False)


def test_a_later_entry_replaces_an_earlier_one_and_gaps_become_unused() -> None:
    lists = filled(together=True)
    assert lists.texts == ["a", "[PAD1]", "d", "[PAD3]"]
    assert lists.types == [TokenType.NORMAL, TokenType.UNUSED] * 2
    assert lists.scores[0] == lists.scores[2] == 0.0


def test_a_token_of_the_model_without_a_row_is_refused_also_among_many() -> None:
    table = TokenTable(4)
    table.place_all(ENTRIES, TokenType.NORMAL)
    with pytest.raises(TokenizerError, match="beyond the model's 4 embeddings"):
        table.finish()
