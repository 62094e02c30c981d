"""``mofa-gguf serve``: OpenAI's API over HTTP, for programs outside this process."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from mofa_gguf.cli.client import (
    MODEL_HELP,
    Choice,
    ConfigOption,
    ContextOption,
    GpuLayersOption,
    open_provider,
)

Provider = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--provider", "-p", "--name", help="A provider of the config file."),
]
ApiKey = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--api-key",
        metavar="KEY",
        envvar="MOFA_GGUF_API_KEY",
        help="What clients must send; in the variable, no list of processes shows it.",
    ),
]
AllowPublic = Annotated[
    bool,
    typer.Option(
        "--allow-public", help="Listen where other machines reach it, although without a key."
    ),
]
CorsOrigin = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="Let scripts of these web pages ask (https://example.org, or *); repeatable.",
    ),
]


def run(
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="MODEL", help=MODEL_HELP),
    ] = None,
    config: ConfigOption = None,
    provider: Provider = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Listen on this address.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Listen here; 0 takes any free port.")
    ] = 8080,
    api_key: ApiKey = None,
    allow_public: AllowPublic = False,
    cors_origin: CorsOrigin = None,
    max_body_mb: Annotated[
        int, typer.Option("--max-body-mb", min=1, help="Largest request, in MB.")
    ] = 16,
    shutdown_s: Annotated[
        float,
        typer.Option("--shutdown-s", min=0, help="Seconds for running answers after a signal."),
    ] = 10.0,
    n_ctx: ContextOption = None,
    n_gpu_layers: GpuLayersOption = None,
) -> None:
    """Serve a model, or any provider of a config file, as OpenAI's API until interrupted.

    Needs the extra: pip install 'mofa-gguf\\[serve]'.
    """
    from mofa_gguf.server import ServerOptions, check_extra, serve

    options = ServerOptions(
        host=host,
        port=port,
        api_key=api_key,
        allow_public=allow_public,
        cors_origins=tuple(cors_origin or ()),
        max_body_bytes=max_body_mb * 10**6,
        shutdown_s=shutdown_s,
    )
    options.check()
    check_extra()
    opened = open_provider(Choice(model, config, provider, n_ctx, n_gpu_layers))
    serve(opened, options, on_ready=lambda url: typer.echo(f"serving {opened.name()} at {url}"))
