"""The output file: whole lines, each on the disk before it counts, one writer at a time.

A run that is killed leaves whole lines and at most one torn one at the end, which the next run cuts
off. The lock is the operating system's on the file itself: it ends with the process that holds it,
however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from mofa_gguf.batch.errors import OtherBatch, OutputInUse, OutputUnusable
from mofa_gguf.batch.records import PREFIX, RecordId, read_record_id
from mofa_gguf.batch.survey import Survey

_WAITING, _DONE, _FAILED = 0, 1, 2
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_MODE = 0o644


class BatchOutput:
    """An output file, open and locked, for a ``with`` block; ``recover`` comes first.

    Args:
        path: the file; made where there is none, and removed again if the block fails without a
            line written.
        survey: the input that its lines have to answer.
        options_digest: what they have to be computed with (see ``records``) ...
        any_options: ... unless this says that anything will do.

    Raises:
        OutputInUse: another run writes it.
        OutputUnusable: it cannot be written.
    """

    def __init__(self, path: Path, survey: Survey, options_digest: str, *, any_options: bool):
        self.path = path.resolve()
        self._survey = survey
        self._options_digest = options_digest
        self._any_options = any_options
        self._states = bytearray(len(survey.digests))
        self._last_number = 0
        self._ascending = True
        self._end = 0
        self._is_new = not self.path.exists()
        self._fd = _open_locked(self.path)

    @property
    def n_done(self) -> int:
        """Lines that have their answer, failed ones among them."""
        return len(self._states) - self._states.count(_WAITING)

    @property
    def n_failed(self) -> int:
        """Lines whose answer is an error."""
        return self._states.count(_FAILED)

    def recover(self) -> None:
        """Count the lines that are there, and cut off a torn one at the end.

        Raises:
            OutputUnusable: the file holds something that is no output of a batch.
            OtherBatch: it answers another input, or was begun with other options.
        """
        self._beside.unlink(missing_ok=True)
        for number, (start, line) in enumerate(self._lines(), start=1):
            if not line.endswith(b"\n") or b"\0" in line:
                # Killed while it was written, or (the zeros) the power went before it was.
                _check_torn(self.path, line, number)
                os.ftruncate(self._fd, start)
                os.fsync(self._fd)
                break
            found = read_record_id(line)
            if found is None:
                raise _foreign(self.path, number)
            self._check(found, number)
            self._count(found)
            self._end = start + len(line)

    def has(self, number: int) -> bool:
        """Whether this line of the input has its answer."""
        return self._states[number - 1] != _WAITING

    def append(self, lines: Sequence[bytes]) -> None:
        """Add whole lines; they are on the disk when this returns.

        Raises:
            OutputUnusable: the disk is full, or otherwise will not; nothing of them stays then.
        """
        data = b"".join(lines)
        try:
            _write_all(self._fd, data)
            os.fsync(self._fd)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise OutputUnusable(
                self.path, f"cannot be written ({error.strerror}); make room and go on"
            ) from error
        self._end += len(data)
        for line in lines:
            found = read_record_id(line)
            assert found is not None
            self._count(found)

    def drop_failed(self) -> None:
        """Take the failed lines out, to compute them again."""
        if not self.n_failed:
            return
        kept = (line for _, line in self._lines() if not _record_of(line).failed)
        self._replace(kept)
        self._states = self._states.replace(bytes([_FAILED]), bytes([_WAITING]))

    def put_in_order(self) -> None:
        """Bring the lines into the order of the input."""
        if self._ascending:
            return
        places = array("Q", bytes(8 * len(self._states)))
        for start, line in self._lines():
            places[_record_of(line).number - 1] = start + 1
        with self.path.open("rb") as file:

            def ordered() -> Iterator[bytes]:
                for place in places:
                    if place:
                        file.seek(place - 1)
                        yield file.readline()

            self._replace(ordered())
        self._ascending = True

    def close(self) -> None:
        """Give the lock back. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> BatchOutput:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self._remove_if_nothing_came()
        self.close()

    @property
    def _beside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.rewritten")

    def _remove_if_nothing_came(self) -> None:
        with contextlib.suppress(OSError):
            if self._is_new and os.fstat(self._fd).st_size == 0:
                self.path.unlink()

    def _check(self, found: RecordId, number: int) -> None:
        digests = self._survey.digests
        if found.number > len(digests) or found.line_digest != digests[found.number - 1]:
            raise OtherBatch(
                self.path,
                f"answers another input: its line {number} answers a line {found.number} that "
                f"{self._survey.path} does not have; choose another output",
                line=number,
            )
        if self.has(found.number):
            raise OutputUnusable(
                self.path, f"answers line {found.number} twice; choose another output", line=number
            )
        if found.options_digest != self._options_digest and not self._any_options:
            raise OtherBatch(
                self.path,
                "was begun with another model or other options; give the same again, or choose "
                "another output",
                line=number,
            )

    def _count(self, found: RecordId) -> None:
        self._states[found.number - 1] = _FAILED if found.failed else _DONE
        self._ascending = self._ascending and found.number > self._last_number
        self._last_number = found.number

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines with where they start."""
        start = 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    yield start, line
                    start += len(line)
        except OSError as error:
            raise OutputUnusable(self.path, f"cannot be read ({error.strerror})") from error

    def _replace(self, lines: Iterable[bytes]) -> None:
        """Put a file with these lines in the place of this one, whole or not at all."""
        fd = -1
        try:
            fd = os.open(self._beside, _FLAGS | os.O_TRUNC, _MODE)
            os.fchmod(fd, stat.S_IMODE(os.fstat(self._fd).st_mode))
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = 0
            for line in lines:
                _write_all(fd, line)
                end += len(line)
            os.fsync(fd)
            self._beside.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            with contextlib.suppress(OSError):
                self._beside.unlink()
            raise OutputUnusable(
                self.path, f"cannot be rewritten ({error.strerror}); make room and go on"
            ) from error
        os.close(self._fd)
        self._fd, self._end = fd, end


def _open_locked(path: Path) -> int:
    while True:
        try:
            fd = os.open(path, _FLAGS, _MODE)
        except OSError as error:
            raise OutputUnusable(path, f"cannot be written ({error.strerror})") from error
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OutputUnusable(path, "is no file; choose one")
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another run may have put a new file there, or removed an empty one, since it opened.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BlockingIOError:
            os.close(fd)
            raise OutputInUse(path) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_torn(path: Path, line: bytes, number: int) -> None:
    """What is cut off has to be the beginning of a line of ours: nobody else's file is cut."""
    beginning = line.split(b"\0", 1)[0][: len(PREFIX)]
    if not PREFIX.startswith(beginning) or (number == 1 and not beginning):
        raise _foreign(path, number)


def _record_of(line: bytes) -> RecordId:
    found = read_record_id(line)
    assert found is not None, "every line of a recovered output is one of ours"
    return found


def _foreign(path: Path, number: int) -> OutputUnusable:
    return OutputUnusable(
        path,
        f"holds something else: its line {number} is no output of a batch; choose another output",
        line=number,
    )
