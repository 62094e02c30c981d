"""``mofa-gguf embed``: texts to vectors, one JSON line each."""

from __future__ import annotations

import sys
from typing import Annotated, Optional

import typer

from mofa_gguf.cli.client import (
    Choice,
    ConfigOption,
    GpuLayersOption,
    ModelOption,
    ProviderOption,
    open_client,
)
from mofa_gguf.cli.errors import CommandError

# Lines of standard input that are embedded at once: enough to fill a batch, few enough to stream.
_LINES_AT_ONCE = 64


def run(
    texts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[TEXT]...", help="Texts; without any, lines of standard input."),
    ] = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    provider: ProviderOption = None,
    n_gpu_layers: GpuLayersOption = None,
) -> None:
    """Print the embedding of each text as a JSON line: {"index", "text", "embedding"}."""
    from itertools import islice

    from mofa_gguf.cli.output import print_json_line

    if not texts and sys.stdin.isatty():
        raise CommandError("there is nothing to embed; give texts, or lines on standard input")
    source = iter(texts) if texts else (line.rstrip("\r\n") for line in sys.stdin)
    index = 0
    with open_client(Choice(model, config, provider, n_gpu_layers=n_gpu_layers)) as client:
        while batch := list(islice(source, _LINES_AT_ONCE)):
            for text, embedding in zip(batch, client.embed_batch(batch), strict=True):
                print_json_line({"index": index, "text": text, "embedding": embedding})
                index += 1
