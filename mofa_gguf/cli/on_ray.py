"""The model a command talks to, on a Ray cluster: through the plugin that brings "gguf-ray"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from mofa_gguf.cli.by_name import find_by_name
from mofa_gguf.cli.client import Choice
from mofa_gguf.cli.errors import CommandError

if TYPE_CHECKING:
    from mofa_gguf.contract import LLMProvider
    from mofa_gguf.host import LLMConfig, ProviderRegistry

KIND = "gguf-ray"
_PLUGIN = "mofa-gguf-ray"
_LOCAL_KIND = "gguf"

RayOption = Annotated[
    bool,
    typer.Option("--ray", help=f"On a Ray of this machine, or of RAY_ADDRESS (plugin {_PLUGIN})."),
]
RayAddressOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--ray-address", metavar="HOST:PORT", help="On this Ray cluster; implies --ray."),
]


def open_on_ray(choice: Choice, address: str | None) -> LLMProvider:
    """The provider of the chosen model on the cluster at an address, or on a local Ray.

    Of the config file's provider, which must be of the kind "gguf" or "gguf-ray", all options are
    kept. Raises CommandError when the plugin is missing or the command line contradicts itself,
    and the errors of the rooms below.
    """
    from mofa_gguf.host import ProviderRegistry
    from mofa_gguf.host.loading import create_provider

    registry = ProviderRegistry().discover()
    _check_installed(registry)
    found = None
    if choice.model is not None:
        found = find_by_name(choice.model, choice.config, choice.provider)
    if choice.model is None or found is not None:
        config = _configured(choice, registry, found)
    else:
        config = _named(choice)
    changes: dict[str, Any] = {"provider": KIND}
    if address is not None:
        changes["extra"] = {**config.extra, "ray_address": address}
    return create_provider(registry, config.model_copy(update=changes))


def _check_installed(registry: ProviderRegistry) -> None:
    if _kind_of(KIND, registry) is not None:
        return
    failed = [problem for problem in registry.problems if problem.distribution == _PLUGIN]
    why = f" ({failed[0]})" if failed else ""
    raise CommandError(
        f"--ray needs the plugin {_PLUGIN}, which is not there{why}; install it here and on every "
        f"machine of the cluster: pip install {_PLUGIN}"
    )


def _named(choice: Choice) -> LLMConfig:
    from mofa_gguf.host import LLMConfig

    options: dict[str, Any] = {"model": choice.model}
    if choice.n_ctx is not None:
        options["n_ctx"] = choice.n_ctx
    if choice.n_gpu_layers is not None:
        options["n_gpu_layers"] = choice.n_gpu_layers
    typed = LLMConfig(provider=KIND, extra=options, base_dir=Path.cwd())
    return typed.with_chosen(*options, "models")


def _configured(choice: Choice, registry: ProviderRegistry, found: LLMConfig | None) -> LLMConfig:
    """The config file's provider: ``found`` in it by a model's name, else the one asked for."""
    from mofa_gguf.host import load_config

    if choice.n_ctx is not None or choice.n_gpu_layers is not None:
        raise CommandError(
            "--n-ctx and --n-gpu-layers go with a model named on the command line by its path; "
            "name one, or set them in the config file"
        )
    config = found or load_config(choice.config).select(choice.provider)
    if _kind_of(config.provider, registry) not in (KIND, _LOCAL_KIND):
        raise CommandError(
            f"--ray is for local models, and the config file's provider is of the kind "
            f"{config.provider!r}; choose another (-p), or name a model (-m)"
        )
    return config


def _kind_of(name: str, registry: ProviderRegistry) -> str | None:
    """The kind that a name or an alias means."""
    entries = (entry for entry in registry.kinds() if name in (entry.kind, *entry.aliases))
    return next((entry.kind for entry in entries), None)
