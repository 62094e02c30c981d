"""What ``mofa-gguf doctor`` says of the config file, its providers and their models."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mofa_gguf.cli.checks import cache
from mofa_gguf.cli.errors import one_line
from mofa_gguf.cli.findings import Finding
from mofa_gguf.cli.output import size, unlogged

if TYPE_CHECKING:
    from mofa_gguf.cli.planning import Outlook
    from mofa_gguf.contract import LLMError, LLMProvider, ModelInfo
    from mofa_gguf.host import LLMConfig, ProviderRegistry
    from mofa_gguf.settings import GGUFConfig

_OUR_KINDS = frozenset({"gguf", "llama-cpp", "gguf-local"})
# What they say is said by findings.
_LOGS = ("mofa_gguf.provider", "mofa_gguf.engine.planning", "mofa_gguf.engine.machine")


def configuration(path: Path | None, registry: ProviderRegistry) -> list[Finding]:
    """The config file, and whether each provider in it can answer."""
    from mofa_gguf.contract import ConfigError
    from mofa_gguf.host import find_config, load_config

    try:
        file = find_config(path)
    except ConfigError as error:
        if path is None and "MOFA_CONFIG" not in os.environ:
            advice = "write a mofa.toml, or name models on the command line"
            return [Finding("config file", "note", "none", advice)]
        return [Finding("config file", "broken", error.message)]
    try:
        config = load_config(file)
    except ConfigError as error:
        return [Finding("config file", "broken", error.message, "correct the file")]
    findings = [Finding("config file", "ok", f"{file}: {', '.join(config.providers)}")]
    with _quietly():
        for name, options in config.providers.items():
            findings += _provider(name, options, registry)
    return findings


def _provider(name: str, options: LLMConfig, registry: ProviderRegistry) -> Iterator[Finding]:
    """One provider of the config file. One of our own is looked at model by model."""
    from mofa_gguf.contract import ConfigError
    from mofa_gguf.settings import GGUFConfig
    from mofa_gguf.store import cache_folder

    models: dict[str, GGUFConfig | None] = {"": None}
    if options.provider in _OUR_KINDS:
        try:
            config = GGUFConfig.from_options(options.options(), options.base_dir)
        except ConfigError as error:
            yield Finding(f"provider {name!r}", "broken", one_line(error), _way_out(error))
            return
        models = {**(config.each() or {"": config})}
        if config.cache_dir not in (None, cache_folder()):
            yield from cache(config.cache_dir)
    for model, own in models.items():
        called, planned = f"{name}/{model}" if model else name, None
        if own is not None:
            yield from _devices(called, own)
            planned = plan(called, own)
        if planned is not None:
            yield planned
        # What does not fit would only be refused.
        if planned is None or planned.verdict != "broken":
            yield answering(called, options, registry, model)


def _devices(name: str, config: GGUFConfig) -> Iterator[Finding]:
    """Options for devices that are not there. Whoever requires one is told by the load."""
    from mofa_gguf.engine.errors import EngineError
    from mofa_gguf.engine.machine.devices import gpus
    from mofa_gguf.engine.machine.rpc import worker_devices

    what, workers = f"devices of {name!r}", 0
    for server in config.rpc_servers:
        try:
            found = worker_devices((server,))
        except EngineError:
            return  # no address, or no build for workers: the load says so
        workers += len(found)
        if not found:
            advice = f"start `mofa-gguf worker` there, or take {server} out of rpc_servers"
            yield Finding(what, "note", f"the worker {server} does not answer", advice)
    asked = config.engine_options().gpu_options
    if asked and not config.require_gpu and not workers and not gpus():
        names = " and ".join(asked)
        detail = (
            f"{names} {'have' if asked[1:] else 'has'} no effect: this build of llama.cpp finds no "
            "GPU"
        )
        yield Finding(what, "note", detail, f"build llama.cpp for the GPU, or leave {names} out")


def plan(name: str, config: GGUFConfig) -> Finding | None:
    """Whether a model fits; None if that can't be told: loading it will say what else is wrong."""
    from mofa_gguf.cli.planning import plan_for
    from mofa_gguf.contract import LLMError
    from mofa_gguf.convert.errors import ConversionError
    from mofa_gguf.engine.errors import EngineError
    from mofa_gguf.provider.template_source import NO_TEMPLATE
    from mofa_gguf.store.errors import StoreError

    try:
        outlook = plan_for(config)
    except (LLMError, EngineError, StoreError, ConversionError):
        return None
    what = f"plan for {name!r}"
    for load in outlook.whole.loads:
        if load.plan.problem is not None:
            advice = "; ".join(load.plan.remedies) or "free memory, or choose a smaller model"
            own = "" if load is outlook.target else "the draft model: "
            return Finding(what, "broken", f"{own}{load.plan.problem} ({load.limit})", advice)
    if not outlook.has_template:
        detail, _, advice = NO_TEMPLATE.partition("; ")
        return Finding(what, "note", f"{_taking(outlook)}; {detail}", advice)
    return Finding(what, "ok", _taking(outlook))


def _taking(outlook: Outlook) -> str:
    """What a model takes of which device."""
    planned, n_bytes = outlook.target.plan, outlook.whole.all_bytes
    takes = ", ".join(
        f"{size(n_bytes[share.device])} of {size(share.available)} on {share.device}"
        for share in (planned.host, *planned.devices)
    )
    detail = f"{takes}; {outlook.context}"
    if outlook.whole.draft is not None:
        detail += ", with its draft model"
    if planned.devices:
        detail += f", {planned.n_gpu_layers} of {planned.n_total} layers offloaded"
    return detail


def answering(
    name: str, options: LLMConfig, registry: ProviderRegistry, model: str = ""
) -> Finding:
    """Whether a provider can be made and says that it is healthy. Loads the model, or its default.

    What goes wrong in a provider, be it a bug in a plugin, is its finding.
    """
    import anyio

    from mofa_gguf.contract import LLMError

    what = f"provider {name!r}"

    async def check() -> str:
        started = time.monotonic()
        async with registry.create(options) as made:
            about = await _about(made, model or made.default_model())
            seconds = time.monotonic() - started
            return f"{options.provider}, {about}, ready in {seconds:.1f} s"

    try:
        return Finding(what, "ok", anyio.run(check))
    except LLMError as error:
        return Finding(what, "broken", one_line(error), _way_out(error))


async def _about(provider: LLMProvider, model: str) -> str:
    """What a healthy provider says of a model; raises what it raises, and Other if it is ill."""
    from mofa_gguf.contract import Other, ProviderNotSupported

    about = model or "no default model"
    try:
        info = await provider.get_model_info(model)
        about = ", ".join(filter(None, (info.name, _reading(provider, info))))
    except ProviderNotSupported:
        # It may be healthy and only have nothing to say of its models.
        if not await provider.health_check():
            raise
    if not await provider.health_check():
        raise Other(f"{about}: it says it is not healthy")
    return about


def _reading(provider: LLMProvider, info: ModelInfo) -> str:
    """How much text a model takes, in words; nothing where that is not known."""
    if not info.context_window:
        return ""
    answers = info.capabilities.streaming or info.max_output_tokens is not None
    if answers or not provider.supports_embedding():
        return f"{info.context_window} tokens of context"
    return f"texts of up to {info.context_window} tokens to embed"


def _way_out(error: LLMError) -> str:
    """What to do about errors whose sentence does not say it."""
    from mofa_gguf.contract import AuthError, ModelNotFound, NetworkError, ProviderNotSupported

    if isinstance(error, ModelNotFound):
        return "name a file, a folder or a hub id that is there (option 'model')"
    if isinstance(error, ProviderNotSupported) and error.known:
        return "name one of these, or install the plugin that brings the kind"
    if isinstance(error, AuthError):
        return "set the key that the provider's plugin asks for"
    if isinstance(error, NetworkError):
        return "start the server, or correct its address"
    return ""


@contextmanager
def _quietly() -> Iterator[None]:
    with ExitStack() as stack:
        for name in _LOGS:
            stack.enter_context(unlogged(name))
        yield
