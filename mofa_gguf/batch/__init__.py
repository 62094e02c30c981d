"""Files of requests, answered through a provider: many at once, resumable, failures kept by line.

    jobs ── what a line asks for      survey ── the input, known before it is worked on
    records ── what an answer looks like      output ── the file they go to      run ── all of it

Works with any provider of the contract. ``run_batch`` is the one way in.
"""

from __future__ import annotations

from mofa_gguf.batch.errors import (
    BatchStopped,
    DuplicateIds,
    InputUnusable,
    OtherBatch,
    OutputInUse,
    OutputUnusable,
)
from mofa_gguf.batch.options import BatchOptions, BatchReport
from mofa_gguf.batch.run import run_batch

__all__ = [
    "BatchOptions",
    "BatchReport",
    "BatchStopped",
    "DuplicateIds",
    "InputUnusable",
    "OtherBatch",
    "OutputInUse",
    "OutputUnusable",
    "run_batch",
]
