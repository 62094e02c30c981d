"""How long a text to embed may be, told from a file's header alone."""

from __future__ import annotations

from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.planning.facts import only_embeds
from mofa_gguf.engine.planning.sizing import shortest_limit, trained_context


def longest_text(header: GGUFHeader, *, n_batch: int | None = None) -> int | None:
    """Most tokens of a text that a model embeds; None for one that generates, and where unknown.

    The engine refuses a longer text, see :func:`mofa_gguf.engine.running.embedding.longest_input`.
    """
    if not only_embeds(header):
        return None
    return shortest_limit(header, trained_context(header), n_batch)
