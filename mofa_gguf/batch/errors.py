"""What can go wrong with a batch as a whole; what goes wrong with a line is kept in its answer.

ConfigError (contract)
├── InputUnusable    the input cannot be read, or changed meanwhile
├── DuplicateIds     two lines of the input have the same custom_id (``custom_id``, ``lines``)
├── OutputUnusable   the output cannot be written, or holds something else (``line``)
├── OtherBatch       the output answers another input, or was begun with other options (``line``)
└── OutputInUse      another run writes the same output
Other (contract)
└── BatchStopped     requests in a row failed with the same words (``code``, ``n_failures``)
"""

from __future__ import annotations

from pathlib import Path

from mofa_gguf.contract import ConfigError, Other


class InputUnusable(ConfigError):
    """The input cannot be read; ``path``."""


class DuplicateIds(ConfigError):
    """Two lines have the same ``custom_id``; ``lines`` are their numbers, from 1."""

    def __init__(self, path: Path, custom_id: str, lines: tuple[int, int]) -> None:
        super().__init__(
            f"lines {lines[0]} and {lines[1]} of {path} have the same custom_id {custom_id!r}; "
            "give each line its own",
            path=path,
            field="custom_id",
        )
        self.custom_id = custom_id
        self.lines = lines


class OutputUnusable(ConfigError):
    """The output cannot be written, or is none of a batch; ``line`` is where that shows."""

    def __init__(self, path: Path, why: str, *, line: int | None = None) -> None:
        super().__init__(f"{path} {why}", path=path)
        self.line = line


class OtherBatch(OutputUnusable):
    """The output was begun with another input or other options."""


class OutputInUse(OutputUnusable):
    """Another run has the output's lock."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "is written by another run; wait for it, or choose another output")


class BatchStopped(Other):
    """So many requests in a row failed with the same words that no line was to blame."""

    def __init__(self, n_failures: int, code: str, message: str) -> None:
        super().__init__(
            f"stopped after {n_failures} requests in a row failed alike ({code}: {message}); "
            "set it right and compute them again with --retry-failed (retry_failed=True)"
        )
        self.n_failures = n_failures
        self.code = code
