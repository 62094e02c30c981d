"""A folder for what is needed for a while."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mofa_gguf.unfinished import Unfinished


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder among the temporary ones, gone after the block, however that ends.

    Raises OSError where none can be made.
    """
    # Named here: it is known before it is there.
    path = Path(tempfile.gettempdir()) / f"mofa-gguf-{os.urandom(8).hex()}"
    with Unfinished(lambda: shutil.rmtree(path, ignore_errors=True)):
        try:
            path.mkdir(mode=0o700)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
