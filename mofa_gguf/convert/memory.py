"""How much memory it takes to run the file that a plan describes.

The engine says so, as ``mofa-gguf plan`` shows it: the file is stood in for by one with its header
and no data, which takes hardly any room on the disk.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.scratch import scratch_folder
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.planning.facts import only_embeds
from mofa_gguf.engine.planning.fit import plan_unbounded

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryEstimate:
    """What running the model takes, in bytes, with a context of ``n_ctx`` tokens.

    As ``mofa-gguf plan`` shows it for a machine without GPUs that has room for all of it.
    """

    n_ctx: int
    """Where ``only_embeds``, the tokens that it reads at once."""
    only_embeds: bool
    weights: int
    kv_cache: int
    """In 16 bits a value."""
    allowance: int
    """For the buffers of a computation, and what the engine holds beside them."""

    @property
    def n_bytes(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.allowance


def memory_to_run(part: Part, n_ctx: int | None = None) -> MemoryEstimate | None:
    """What the whole file takes with ``n_ctx`` tokens of context, on a machine without GPUs.

    By default as many as the model was trained for. None, and a line in the log, for a file that
    the engine would not load, and where there is no place for temporary files of its size.
    """
    try:
        with scratch_folder() as folder:
            path = folder / "planned.gguf"
            with path.open("wb") as file:
                file.write(part.header)
                file.truncate(part.n_bytes)
            header = read_header(path)
            load = plan_unbounded(header, n_ctx=n_ctx)
    except (EngineError, OSError) as error:
        logger.info("the memory to run %s is not known: %s", part.path.name, error)
        return None
    host = load.plan.host
    return MemoryEstimate(
        n_ctx=load.plan.n_ctx,
        only_embeds=only_embeds(header),
        weights=host.weights,
        kv_cache=host.cache,
        allowance=host.compute + host.other,
    )
