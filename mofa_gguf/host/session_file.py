"""A chat session as a JSON file."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from pydantic import Field

from mofa_gguf.contract.base import U32, ContractModel
from mofa_gguf.contract.errors import ConfigError, SerializationError
from mofa_gguf.contract.messages import ChatMessage

_LONGEST = 50  # characters of a name, of which the file system takes 255 bytes


class SessionState(ContractModel):
    """All that is kept of a session; ``n_hidden_turns`` of its turns the model no longer sees."""

    session_id: str
    system_prompt: str | None = None
    context_window_size: U32 | None = None
    messages: list[ChatMessage] = Field(default_factory=list)
    n_hidden_turns: U32 = 0
    summary: str | None = None


def write_session(state: SessionState, path: Path | str) -> None:
    """Write a session's file, whole or not at all; folders are made.

    Raises:
        ConfigError: the file cannot be written (``path`` names it).
    """
    file = Path(os.path.expanduser(path))
    try:
        if file.exists() and not file.is_file():
            raise OSError(errno.EINVAL, "it is no ordinary file")
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:_LONGEST]}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as temporary:
                temporary.write(state.to_json(indent=1))
            Path(name).replace(file)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise ConfigError(
            f"{file}: the session cannot be saved ({error.strerror})", path=file
        ) from error


def read_session(path: Path | str) -> SessionState:
    """Read a session's file.

    Raises:
        ConfigError: there is no such file, or it cannot be read (``path`` names it).
        SerializationError: it holds no session.
    """
    file = Path(os.path.expanduser(path))
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: the session cannot be loaded ({error.strerror})", path=file
        ) from error
    try:
        return SessionState.from_json(text)
    except SerializationError as error:
        raise SerializationError(f"{file}: {error.message}", content=error.content) from error
