"""The command ``mofa-gguf``, also as ``python -m mofa_gguf``.

Importing the command line takes a tenth of a second, and Ctrl-C in it is no traceback.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType

from mofa_gguf import unfinished

_BY_SIGNAL = 128
"""What a shell adds to the number of the signal that ended a program."""
INTERRUPTED = _BY_SIGNAL + signal.SIGINT
_ONLY_WRITE = ("convert", "quantize", "imatrix")
"""Commands whose work is in a file when they end: no threads, nothing that waits for an exit."""
_ENDINGS = ("SIGTERM", "SIGHUP")
_ALLOCATIONS_A_COLLECTION = 300_000


def main() -> int:
    """Run this process's command line; returns its exit code, 130 where Ctrl-C ended it."""
    before = signal.getsignal(signal.SIGINT)
    is_heard = before is signal.default_int_handler  # it may be ignored, as in a background job
    if is_heard:
        signal.signal(signal.SIGINT, _leave)
    ends_at_once = _only_writes() and os.name == "posix"  # elsewhere open files cannot be removed
    if ends_at_once:
        for name in _ENDINGS:
            if signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
                signal.signal(getattr(signal, name), _leave)
    # Modules and vocabularies are no garbage: looking through them again and again, and once more
    # at the end, is a sixth of what converting a small model takes.
    gc.set_threshold(_ALLOCATIONS_A_COLLECTION)
    # Nothing here multiplies matrices with NumPy, whose threads would be started all the same.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from mofa_gguf.cli.main import main as run

    try:
        if is_heard and not ends_at_once:
            signal.signal(signal.SIGINT, before)
        code = run()
    except KeyboardInterrupt:
        code = INTERRUPTED
    if is_heard:
        signal.signal(signal.SIGINT, _leave)
    gc.freeze()
    return code


def program() -> None:
    """:func:`main`, and the end of the process.

    Taking apart what a conversion has imported and read takes longer than writing a small model,
    so its end is not Python's.
    """
    code = main()
    if _only_writes() and _is_said():
        os._exit(code)
    sys.exit(code)


def _only_writes() -> bool:
    return sys.argv[1:2] != [] and sys.argv[1] in _ONLY_WRITE


def _is_said() -> bool:
    """Whether all output has arrived; Python's own end says what is wrong where it has not."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process: nothing has begun yet, or is left, or what is unfinished is undone.

    An exception would not always arrive: it is printed and forgotten where the import system calls
    back, and a module may make another one of it.
    """
    unfinished.end(_BY_SIGNAL + number)


if __name__ == "__main__":
    program()
