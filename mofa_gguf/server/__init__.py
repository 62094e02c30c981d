"""OpenAI's API over HTTP, in front of any provider: for those who cannot be in the process.

Importing this room loads neither starlette nor uvicorn; :func:`serve` does, and says what to
install where they are missing (the optional extra ``serve``).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from mofa_gguf.contract import ConfigError, LLMProvider
from mofa_gguf.server.options import ServerOptions

__all__ = ["ServerOptions", "check_extra", "serve"]

_NEEDED = ("starlette", "uvicorn")


def serve(
    provider: LLMProvider,
    options: ServerOptions | None = None,
    *,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a provider until SIGINT or SIGTERM, then close it; blocks.

    ``on_ready`` is called with the address once requests are answered. Raises ConfigError for a
    missing extra, an address that cannot be used or one that would be open to everybody, and what
    loading the default model raises.
    """
    options = options or ServerOptions()
    options.check()
    check_extra()
    import asyncio

    from mofa_gguf.server.running import run

    asyncio.run(run(provider, options, on_ready=on_ready))


def check_extra() -> None:
    """Raise ConfigError where the packages of the extra ``serve`` are missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serving needs {' and '.join(missing)}, which this installation lacks; "
            "pip install 'mofa-gguf[serve]'"
        )
