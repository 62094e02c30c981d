"""Options of ``convert`` and ``quantize``: which tensor gets which type, in how many files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, List, Optional  # noqa: UP035

import typer

# typer reads these at run time, also under Python 3.10.
TensorTypes = Annotated[
    Optional[List[str]],  # noqa: UP006, UP045
    typer.Option(
        "--tensor-type",
        metavar="PATTERN=TYPE",
        help="A type for tensors whose GGUF name the regular expression is found in. Repeatable.",
    ),
]
OutputType = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--output-type", metavar="TYPE", help="The type of the output matrix."),
]
EmbeddingType = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--embedding-type", metavar="TYPE", help="The type of the token embeddings."),
]
Pure = Annotated[
    bool, typer.Option("--pure", help="One type for all tensors, instead of the usual mixture.")
]
Imatrix = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        "--imatrix",
        metavar="FILE",
        help="An importance matrix of llama.cpp's (GGUF or .dat); few bits need one.",
    ),
]
SplitMaxSize = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--split-max-size", metavar="N(M|G)", help="Several files where one would be larger."
    ),
]
ContextSize = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(
        "--n-ctx",
        min=1,
        help="Tokens of context for the dry run's estimate of memory. Default: what the model was "
        "trained for.",
    ),
]
