"""Errors at the edge: one line on standard error and an exit code, at this one place."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import typer

DEBUG_VARIABLE = "MOFA_GGUF_DEBUG"
FAILED = 1
# A file's name may have them, and a terminal obeys them.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what was asked; the text is the line the user sees."""


@contextmanager
def reported() -> Iterator[None]:
    """Run a command: what it raises becomes one line and ``typer.Exit``.

    MOFA_GGUF_DEBUG=1 lets the error through with its traceback.
    """
    debug = os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug or _is_typers_own(error):
            raise
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise  # the reader of our output is gone; typer ends quietly
        if _was_interrupted(error):
            raise typer.Exit(INTERRUPTED) from error
        show_error(one_line(error))
        raise typer.Exit(FAILED) from error


def show_error(line: str) -> None:
    """Write an error line, red on a terminal."""
    typer.secho(f"error: {_CONTROLS.sub(_escaped, line)}", err=True, fg=typer.colors.RED)


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]):02x}"


def one_line(error: Exception) -> str:
    """An error as one line: what, why, what to do."""
    text = " ".join(str(error).split())
    if _is_expected(error):
        return text or type(error).__name__
    return (
        f"this is a bug in mofa-gguf ({type(error).__name__}: {text}); "
        f"run again with {DEBUG_VARIABLE}=1 to see where, and report it"
    )


def _was_interrupted(error: Exception) -> bool:
    """Whether it is what a library made of Ctrl-C: pydantic does where it makes a model's class."""
    if _is_expected(error):
        return False
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and cause not in causes:
        causes.append(cause)
    return any(isinstance(e, KeyboardInterrupt) or "KeyboardInterrupt" in str(e) for e in causes)


def _is_expected(error: Exception) -> bool:
    from mofa_gguf.convert.errors import ConversionError
    from mofa_gguf.engine.errors import EngineError
    from mofa_gguf.store.errors import StoreError

    if isinstance(error, (CommandError, ConversionError, EngineError, StoreError, OSError)):
        return True
    from mofa_gguf.contract import LLMError  # with pydantic: most commands do without

    return isinstance(error, LLMError)


def _is_typers_own(error: Exception) -> bool:
    """Wrong usage, an early exit: typer prints these and knows their exit codes."""
    # Depending on its version, typer raises click's classes or its own copies of them.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"ClickException", "Exit", "Abort"})
