"""Options of the commands that ask a model: how it answers."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

# typer reads these annotations at run time, where Python 3.10 is the oldest.
SystemOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--system", "-s", help="The system prompt."),
]
TemperatureOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--temperature", "-t", help="0 always takes the likeliest token."),
]
MaxTokensOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--max-tokens", "-n", min=1, help="Most tokens of an answer."),
]
SeedOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--seed", help="The same seed gives the same answer."),
]
