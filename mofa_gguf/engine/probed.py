"""The other side of :mod:`probe`: what the process does that loads a file for a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import EngineError, ModelFileError
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions

_OPTIONS = EngineOptions(
    n_ctx=64,
    n_batch=32,
    n_threads=1,
    n_threads_batch=1,
    n_gpu_layers=0,
    n_embedding_batch=32,
    max_parallel=1,
    prefix_memory=0,
    speculation="off",
    probe="never",
)
_TEXT = "Hi 4!"


def main(given: dict[str, Any]) -> None:
    """Load ``given["file"]`` and say on standard output, as JSON, what is wrong with it."""
    _limit(given["memory_bytes"])
    sys.stdout.write(json.dumps({"problem": problem_with(Path(given["file"]))}) + "\n")
    sys.stdout.flush()


def problem_with(path: Path) -> str | None:
    """What loading and running the file comes to: what is wrong with the file, or None.

    Lack of memory, for one, is no fault of the file.
    """
    try:
        engine = Engine.load(path, _OPTIONS)
    except ModelFileError as error:
        return error.problem
    except EngineError:
        return None
    try:
        tokens = engine.model.vocab.tokenize(_TEXT, add_special=True)[:8] or [0]
        if not engine.can_generate:
            engine.embed([tokens]).result()
            return None
        for _event in engine.submit(
            GenerationRequest(tokens, SamplingOptions(temperature=0), max_tokens=1)
        ):
            pass
    except EngineError as error:
        return f"loads, but does not run: {error}"
    finally:
        engine.close()
    return None


def _limit(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    within = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (within, hard))
