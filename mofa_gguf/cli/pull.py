"""``mofa-gguf pull``: bring a model of the hub onto the disk."""

from __future__ import annotations

from typing import Annotated

import typer


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="org/name, org/name:Q4_K_M, org/name:file.gguf, org/name@revision.",
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Download a model from the Hugging Face hub, or bring it up to date.

    Of a GGUF repository one model is fetched; of a checkpoint repository the safetensors and the
    tokenizer, which are converted when the model is first used. An interrupted download goes on
    where it stopped.
    """
    from mofa_gguf.cli.output import print_json
    from mofa_gguf.cli.progress import progress_view
    from mofa_gguf.store import pull

    with progress_view(quiet=json) as progress:
        path = pull(model, progress=progress)
    kind = "checkpoint" if path.is_dir() else "gguf"
    if json:
        print_json({"model": model, "path": str(path), "kind": kind})
    else:
        print(path)
