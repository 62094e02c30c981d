"""The model a command talks to: named on the command line, or chosen by the config file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mofa_gguf.cli.errors import CommandError

if TYPE_CHECKING:
    from mofa_gguf.contract import LLMProvider
    from mofa_gguf.host import LLMClient, LLMConfig
    from mofa_gguf.settings import GGUFConfig

MODEL_HELP = (
    "The name of a model in the config file (it goes first; ./NAME is always the file), "
    "a .gguf file, a checkpoint folder, a hub id (org/name[:Q4_K_M]) or 'demo'. "
    "Without it, the config file's default provider."
)

# typer reads these annotations at run time, where Python 3.10 is the oldest.
ModelOption = Annotated[
    Optional[str], typer.Option("--model", "-m", metavar="MODEL", help=MODEL_HELP)  # noqa: UP045
]
ConfigOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--config", "-c", metavar="FILE", help="A config file (mofa.toml, .yaml, .json)."),
]
ProviderOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--provider", "-p", metavar="NAME", help="A provider of the config file."),
]
ContextOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--n-ctx", min=1, help="Tokens of context, with MODEL."),
]
GpuLayersOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--n-gpu-layers", metavar="N|all|auto", help="Layers on the GPU, with MODEL."),
]


@dataclass(frozen=True)
class Choice:
    """Which model, as the command line says it."""

    model: str | None = None
    config: Path | None = None
    provider: str | None = None
    n_ctx: int | None = None
    n_gpu_layers: str | None = None


def open_client(choice: Choice) -> LLMClient:
    """A client for the chosen model; see :func:`open_provider`."""
    from mofa_gguf.host import LLMClient

    return LLMClient(open_provider(choice))


def open_provider(choice: Choice) -> LLMProvider:
    """The provider of the chosen model; converting or downloading it first shows progress.

    Raises CommandError when the command line contradicts itself, and the errors of the rooms below.
    """
    if choice.model is None:
        return _configured(choice)
    from mofa_gguf.cli.by_name import find_by_name

    found = find_by_name(choice.model, choice.config, choice.provider)
    return _named(choice.model, choice) if found is None else _configured(choice, found)


def _configured(choice: Choice, found: LLMConfig | None = None) -> LLMProvider:
    """The config file's provider: ``found`` in it by a model's name, else the one asked for."""
    from mofa_gguf.host import ProviderRegistry, load_provider
    from mofa_gguf.host.loading import create_provider

    if choice.n_ctx is not None or choice.n_gpu_layers is not None:
        raise CommandError(
            "--n-ctx and --n-gpu-layers go with a model named on the command line by its path; "
            "name one, or set them in the config file"
        )
    if found is None:
        provider = load_provider(choice.config, name=choice.provider)
    else:
        provider = create_provider(ProviderRegistry().discover(), found)
    # Another kind of provider has not imported ours, and has nothing to prepare.
    ours, first = sys.modules.get("mofa_gguf.provider.gguf"), _first_asked(provider)
    if ours is not None and isinstance(first, ours.GGUFProvider):
        config: GGUFConfig = first.config
        _prepare(config.each().get(config.model, config))
    return provider


def _first_asked(provider: LLMProvider) -> LLMProvider:
    """The provider that a request reaches first: behind retries, at the head of a chain."""
    from mofa_gguf.host import FallbackChain, RetryingProvider

    while True:
        if isinstance(provider, RetryingProvider):
            provider = provider.provider
        elif isinstance(provider, FallbackChain):
            provider = provider.providers[0]
        else:
            return provider


def _named(model: str, choice: Choice) -> LLMProvider:
    from mofa_gguf.settings import GGUFConfig

    options: dict[str, Any] = {"model": model, "models": {}}  # none of the environment beside it
    if choice.n_ctx is not None:
        options["n_ctx"] = choice.n_ctx
    if choice.n_gpu_layers is not None:
        text = choice.n_gpu_layers
        options["n_gpu_layers"] = int(text) if text.lstrip("-").isdigit() else text
    config = GGUFConfig(**options)
    _prepare(config)
    from mofa_gguf.provider import GGUFProvider  # heavy: not before the model is known to be there

    return GGUFProvider(config)


def _prepare(config: GGUFConfig) -> None:
    """Convert or download the model now, to show progress; the provider then finds it on disk."""
    from mofa_gguf.cli.progress import progress_view
    from mofa_gguf.store import resolve

    with progress_view() as progress:
        resolve(
            config.model,
            cache_dir=config.cache_dir,
            quantization=config.quantization,
            offline=config.offline,
            progress=progress,
        )
