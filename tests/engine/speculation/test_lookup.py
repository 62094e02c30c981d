"""Guessing from a text's own past."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.speculation.lookup import MAX_MATCH, MIN_MATCH, Lookup, Match, continuation


def find(tokens: list[int]) -> Match | None:
    lookup = Lookup()
    lookup.extend(tokens)
    return lookup.find(tokens)


def test_the_latest_of_equally_long_agreements_is_found() -> None:
    tokens = [1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]
    assert find(tokens) == Match(at=7, length=3)
    assert continuation(tokens, Match(at=7, length=3), 3) == [8, 1, 2]


def test_a_longer_agreement_goes_before_a_later_one() -> None:
    tokens = [5, 6, 1, 2, 3, 7, 0, 1, 2, 3, 8, 5, 6, 1, 2, 3]
    assert find(tokens) == Match(at=5, length=5)


def test_a_period_goes_on_for_ever() -> None:
    tokens = [1, 2, 1, 2, 1, 2]
    match = find(tokens)
    assert match is not None
    assert continuation(tokens, match, 5) == [1, 2, 1, 2, 1]


def test_nothing_is_found_where_nothing_agrees() -> None:
    assert find([]) is None
    assert find([1, 2]) is None
    assert find([4, 4, 4]) is None
    assert find([1, 2, 3, 9, 2, 3]) is None


def test_tokens_that_agree_across_their_bytes_are_no_match() -> None:
    # The bytes of 1, 1, 1 are in those of 256, 256, 256, 256, but not at the border of a token.
    assert find([256, 256, 256, 256, 9, 1, 1, 1]) is None


tokens_of_few_kinds = st.lists(st.sampled_from([0, 1, 256, 65536]), max_size=80)


@given(tokens_of_few_kinds, st.lists(st.integers(0, 20), max_size=5))
def test_what_is_found_agrees_however_the_text_came(tokens: list[int], cuts: list[int]) -> None:
    lookup = Lookup()
    for cut in sorted(cuts):
        lookup.extend(tokens[:cut])
    lookup.extend(tokens)
    match = lookup.find(tokens)
    assert match == find(tokens)
    places = [
        at
        for at in range(MIN_MATCH, len(tokens))
        if tokens[at - MIN_MATCH : at] == tokens[-MIN_MATCH:]
    ]
    assert (match is None) == (not places)
    if match is not None:
        assert match.at in places
        assert MIN_MATCH <= match.length <= MAX_MATCH
        assert tokens[match.at - match.length : match.at] == tokens[-match.length :]
        assert continuation(tokens, match, 1) == [tokens[match.at]]
