"""Where texts spell tokens: one regular expression for many spellings, and memory for the rest."""

from __future__ import annotations

import re
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

_END = ""


def pattern_of(spellings: Iterable[str]) -> re.Pattern[str] | None:
    """Matches any of the spellings, the longest where several begin; None for no spellings.

    Written as a tree of common beginnings: vocabularies have hundreds of control tokens, and
    trying them one by one at every bracket of a prompt would take longer than tokenizing it.
    """
    tree: dict[str, Any] = {}
    for spelling in spellings:
        node = tree
        for character in spelling:
            node = node.setdefault(character, {})
        if spelling:
            node[_END] = None
    return re.compile(_alternatives(tree)) if tree else None


def _alternatives(node: dict[str, Any]) -> str:
    # Chains are walked, not recursed into: a spelling may be longer than Python's stack.
    prefix = ""
    while len(node) == 1 and _END not in node:
        character, node = next(iter(node.items()))
        prefix += re.escape(character)
    branches = [
        re.escape(character) + _alternatives(child)
        for character, child in node.items()
        if character != _END
    ]
    if not branches:
        return prefix
    optional = "?" if _END in node else ""
    return f"{prefix}(?:{'|'.join(branches)}){optional}"


def chunks(text: str, starts: re.Pattern[str] | None) -> Iterator[str]:
    """``text`` cut in front of every match."""
    if starts is None:
        yield text
        return
    begin = 0
    for found in starts.finditer(text):
        if found.start() > begin:
            yield text[begin : found.start()]
            begin = found.start()
    yield text[begin:]


class TokenMemo:
    """Remembers the tokens of texts, so that a conversation that grows is not tokenized anew.

    Holds ``max_characters`` of text at most and gives up what was not asked for the longest. Safe
    to use from several threads.
    """

    def __init__(self, *, max_characters: int = 2**22) -> None:
        self._max_characters = max_characters
        self._n_characters = 0
        self._known: OrderedDict[str, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def tokens(self, text: str, encode: Callable[[str], Sequence[int]]) -> Sequence[int]:
        """Tokens of ``text``, by ``encode`` where they are not remembered."""
        with self._lock:
            found = self._known.get(text)
            if found is not None:
                self._known.move_to_end(text)
                return found
        tokens = array("i", encode(text))
        with self._lock:
            if text not in self._known:
                self._known[text] = tokens
                self._n_characters += len(text)
            while self._n_characters > self._max_characters:
                given_up, _ = self._known.popitem(last=False)
                self._n_characters -= len(given_up)
        return tokens
