"""The command ``mofa-gguf``, also as ``python -m mofa_gguf``.

Importing the command line takes a tenth of a second, and Ctrl-C in it is no traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> int:
    """Run this process's command line; returns its exit code, 130 where Ctrl-C ended it."""
    before = signal.getsignal(signal.SIGINT)
    is_heard = before is signal.default_int_handler  # it may be ignored, as in a background job
    if is_heard:
        signal.signal(signal.SIGINT, _leave)
    from mofa_gguf.cli.main import main as run

    try:
        if is_heard:
            signal.signal(signal.SIGINT, before)
        return run()
    except KeyboardInterrupt:
        return INTERRUPTED


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process: nothing has begun yet that could be left half done.

    An exception would not always arrive: it is printed and forgotten where the import system calls
    back, and a module may make another one of it.
    """
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
