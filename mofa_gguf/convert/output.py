"""The target file: written beside its place under another name, moved there when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from mofa_gguf.convert.errors import OutputError
from mofa_gguf.unfinished import Unfinished

_LONGEST = 50  # characters of a name, of which the file system takes 255 bytes
_WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file system does not take files of this size",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
}


def check_target(target: Path, *, force: bool) -> None:
    """Raise OutputError where the target cannot be: it exists, or its folder cannot take it."""
    try:
        there = target.stat()
    except FileNotFoundError:
        there = None
    except OSError as error:
        raise _unreachable(target, error) from error
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise OutputError(target, "is a folder; give a file name that ends in .gguf")
    if there is not None and not stat.S_ISREG(there.st_mode):
        raise OutputError(target, "is no ordinary file; give the name of one")
    if not force and (there is not None or target.is_symlink()):
        raise OutputError(
            target, "exists already; choose another name, or replace it (--force, force=True)"
        )
    if not target.parent.is_dir():
        raise OutputError(target, f"the folder {target.parent} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(target, f"the folder {target.parent} takes no files (no permission)")


def _unreachable(target: Path, error: OSError) -> OutputError:
    if isinstance(error, NotADirectoryError):
        return OutputError(target, f"{target.parent} is no folder; give another place")
    return output_error(target, error)


def partial_path(target: Path) -> Path:
    """A hidden name beside a target that nobody has; short, where the target's is long."""
    return target.with_name(f".{target.name[:_LONGEST]}.{os.urandom(4).hex()}.part")


def check_space(target: Path, n_bytes: int) -> None:
    """Raise OutputError where fewer than ``n_bytes`` are free on the target's disk."""
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise output_error(target, error) from error
    if free < n_bytes:
        raise OutputError(
            target,
            f"{n_bytes / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; "
            "make room or choose another folder or a smaller quantization",
        )


def output_error(target: Path, error: OSError) -> OutputError:
    """What a failed system call means to a user."""
    reason = _WHY.get(error.errno or 0, error.strerror or str(error))
    return OutputError(target, f"cannot be written: {reason}")


class PartialFile:
    """A file that gets its name only when :meth:`commit` is called. Use as a context manager.

    Leaving the block without a commit, however that happens, removes what was written. Raises
    OutputError where the folder does not take the file.
    """

    file: BinaryIO
    _syncing: Future[None] | None = None

    def __init__(self, target: Path, path: Path | None = None) -> None:
        self.target = target
        self.path = path or partial_path(target)
        self._unfinished = Unfinished(self._remove)

    def begin(self) -> None:
        """Make the file."""
        try:
            self.file = self.path.open("xb")
        except OSError as error:
            raise output_error(self.target, error) from error

    def flush(self) -> None:
        """Let others see everything that was written."""
        try:
            self.file.flush()
        except OSError as error:
            raise output_error(self.target, error) from error

    def settle(self) -> None:
        """Begin to bring everything to the disk, while other work goes on; nothing comes after."""
        self.flush()
        if self._syncing is None:
            pool = ThreadPoolExecutor(1, thread_name_prefix="mofa-gguf-sync")
            self._syncing = pool.submit(os.fsync, self.file.fileno())
            pool.shutdown(wait=False)

    def finish(self) -> None:
        """Wait until the disk has everything, and close the file; it keeps its present name."""
        self.settle()
        assert self._syncing is not None
        try:
            self._syncing.result()
            self.file.close()
        except OSError as error:
            raise output_error(self.target, error) from error

    def commit(self) -> None:
        """Give the file its name, in place of one that has it already."""
        self.finish()
        try:
            self.path.replace(self.target)
        except OSError as error:
            raise output_error(self.target, error) from error

    def close(self) -> None:
        """Close a file that is given up, or that is finished already."""
        with contextlib.suppress(OSError):
            if self._syncing is not None:
                self._syncing.result()
        # Closing writes what is buffered, which may fail.
        with contextlib.suppress(OSError):
            self.file.close()

    def _remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> PartialFile:
        self._unfinished.begin()
        try:
            self.begin()
        except BaseException:  # an interrupt just behind the making, too
            self._remove()
            self._unfinished.finish()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        finally:  # Ctrl-C again, while the disk is waited for
            self._remove()
            self._unfinished.finish()
