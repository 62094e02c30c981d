"""Several target files that appear together, or not at all."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from mofa_gguf.convert.output import PartialFile, output_error, partial_path
from mofa_gguf.unfinished import Unfinished, Whole

logger = logging.getLogger(__name__)


class PartialSet:
    """The parts of a set, written under their names in a hidden folder beside their place.

    There llama.cpp can read them as the set that they will be. Use as a context manager: leaving
    the block without :meth:`commit` removes what was written. Raises OutputError where the disk
    does not take the files.
    """

    def __init__(self, targets: Sequence[Path]) -> None:
        self.targets = tuple(targets)
        self._folder = partial_path(self.targets[0])
        self._unfinished = Unfinished(self._remove)
        self.files: list[PartialFile] = []
        self._holds_others = False

    @property
    def path(self) -> Path:
        """The first part, which stands for all."""
        return self._folder / self.targets[0].name

    def open(self, i: int) -> PartialFile:
        """Begin part ``i``."""
        file = PartialFile(self.targets[i], self._folder / self.targets[i].name)
        file.begin()
        self.files.append(file)
        return file

    def commit(self) -> None:
        """Give all parts their names, in place of files that have them; all or none."""
        for file in self.files:
            file.finish()
        with Whole():
            self._move()

    def _move(self) -> None:
        moved: list[tuple[Path, Path]] = []
        try:
            # The first part last: as long as it is missing, nobody takes the set for whole.
            for file in reversed(self.files):
                if file.target.exists():
                    aside = self._folder / f"{file.target.name}.old"
                    file.target.replace(aside)
                    moved.append((aside, file.target))
                file.path.replace(file.target)
                moved.append((file.target, file.path))
        except BaseException as error:
            for now, before in reversed(moved):
                try:
                    now.replace(before)
                except OSError:
                    self._holds_others = True
            if isinstance(error, OSError):
                raise output_error(self.targets[0], error) from error
            raise

    def _remove(self) -> None:
        if not self._holds_others:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> PartialSet:
        self._unfinished.begin()
        try:
            self._folder.mkdir()
        except BaseException as error:  # an interrupt just behind the making, too
            self._remove()
            self._unfinished.finish()
            if isinstance(error, OSError):
                raise output_error(self.targets[0], error) from error
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self.files:
            file.close()
        self._remove()
        if self._holds_others:
            logger.error("%s holds files that could not be put back in place", self._folder)
        elif self._folder.exists():
            logger.warning("%s could not be removed", self._folder)
        self._unfinished.finish()
