"""``mofa-gguf worker``: lend this machine's devices to a model on another one."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def run(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Listen on this address.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Listen here.")] = 50052,
    threads: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--threads", min=1, metavar="N", help="Threads, where the CPU is lent."),
    ] = None,
    allow_public: Annotated[
        bool,
        typer.Option(
            "--allow-public",
            help="Listen on an address that other machines reach. There is no authentication.",
        ),
    ] = False,
) -> None:
    """Run a worker that takes layers of a model loaded elsewhere (rpc_servers = ["host:port"]).

    Serves one program at a time, until it is interrupted. Needs a build of llama.cpp with RPC.
    """
    import signal

    from mofa_gguf.engine.machine.rpc import serve

    # ggml's server never comes back to Python, which would otherwise keep Ctrl+C for itself.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        serve(host, port, n_threads=threads, allow_public=allow_public)
    finally:
        signal.signal(signal.SIGINT, before)
