"""What a provider says of its model: name, abilities, health, model info."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mofa_gguf.chat import ChatTemplate, TemplateError
from mofa_gguf.contract import ConfigError, ModelCapabilities, ModelInfo
from mofa_gguf.convert.errors import ConversionError
from mofa_gguf.engine.errors import ModelFileError, OutOfMemory
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.provider.template_source import given_template, template_source
from mofa_gguf.settings import GGUFConfig
from mofa_gguf.store import StoreError, locate, preview

# llama.h, enum llama_pooling_type. A file that says how its vectors are pooled is made for that;
# "none" and "rank" give no sentence vectors.
_POOLED = (1, 2, 3)
_NOT_POOLED = (0, 4)


@dataclass(frozen=True)
class Abilities:
    """What a model can be asked for."""

    chat: bool
    tools: bool
    embedding: bool


NOTHING_KNOWN = Abilities(chat=False, tools=False, embedding=False)


@dataclass(frozen=True)
class Health:
    """Whether a provider can answer, and how its model is loaded."""

    healthy: bool
    model: str
    problem: str | None = None
    path: Path | None = None
    n_ctx: int | None = None
    n_ctx_requested: int | str | None = None
    n_gpu_layers: int | None = None
    n_gpu_layers_requested: int | str | None = None
    n_layers: int | None = None
    devices: tuple[str, ...] = ()
    cache_type_k: str | None = None
    cache_type_v: str | None = None


def as_text(name: str) -> str:
    """A name as requests and answers carry it: a question mark for each byte that is no UTF-8."""
    return name.encode("utf-8", errors="replace").decode("utf-8")


def model_name(config: GGUFConfig) -> str:
    """The configured name, else the file's or folder's name, else the hub id."""
    if config.name:
        return config.name
    path = Path(config.model)
    if path.suffix == ".gguf":
        return as_text(path.stem)
    return as_text(path.resolve().name if path.is_dir() else config.model)


def abilities_of(model: LoadedModel) -> Abilities:
    """The abilities of a loaded model."""
    header = model.header
    pooling = header.hyperparameter("pooling_type")
    return _abilities(pooling, header.hyperparameter("attention.causal", True), model.template)


def peek(config: GGUFConfig) -> Abilities:
    """The abilities of a model that is not loaded, from its GGUF file's header or its checkpoint.

    Nothing is known of what is not on disk, or cannot be read.
    """
    try:
        path = locate(config.model, cache_dir=config.cache_dir, offline=True)
        if path.is_dir():
            return _abilities_of_checkpoint(config, path)
        header = read_header(path)
        source = template_source(config, header.metadata)
        pooling = header.hyperparameter("pooling_type")
        causal = header.hyperparameter("attention.causal", True)
        return _abilities(pooling, causal, ChatTemplate(source) if source else None)
    except (ModelFileError, OutOfMemory, TemplateError, StoreError, ConversionError, ConfigError):
        return NOTHING_KNOWN


def _abilities_of_checkpoint(config: GGUFConfig, folder: Path) -> Abilities:
    found = preview(folder)
    pooling = found.metadata.get(f"{found.architecture}.pooling_type")
    causal = found.metadata.get(f"{found.architecture}.attention.causal", True)
    source = given_template(config) or found.templates
    return _abilities(pooling, causal, ChatTemplate(source) if source else None)


def _abilities(pooling: object, causal: object, template: ChatTemplate | None) -> Abilities:
    only_embeds = causal is False or pooling in _POOLED
    return Abilities(
        chat=not only_embeds,
        tools=not only_embeds and template is not None and template.capabilities.tools,
        embedding=pooling not in _NOT_POOLED,
    )


def health_of(model: LoadedModel, name: str) -> Health:
    """The health of a loaded model."""
    engine, offload = model.engine, model.engine.model.offload
    return Health(
        healthy=not engine.closed,
        model=name,
        problem="the engine is closed" if engine.closed else None,
        path=model.resolved.path,
        n_ctx=engine.n_ctx,
        n_ctx_requested=model.config.n_ctx,
        n_gpu_layers=offload.n_layers,
        n_gpu_layers_requested=offload.requested,
        n_layers=offload.n_total,
        devices=offload.devices or ("CPU",),
        cache_type_k=engine.options.cache_type_k,
        cache_type_v=engine.options.cache_type_v,
    )


def model_info(model: LoadedModel, name: str) -> ModelInfo:
    """MoFA's description of a loaded model."""
    abilities = abilities_of(model)
    metadata: Any = model.header.metadata
    return ModelInfo(
        id=name,
        name=as_text(str(metadata.get("general.name") or name)),
        description=_describe(model),
        context_window=model.engine.n_ctx,
        max_output_tokens=model.engine.n_ctx if abilities.chat else None,
        capabilities=ModelCapabilities(
            streaming=abilities.chat,
            tools=abilities.tools,
            vision=False,
            json_mode=abilities.chat,
            json_schema=abilities.chat,
        ),
    )


def _describe(model: LoadedModel) -> str:
    engine, weights = model.engine, model.engine.model
    offload = weights.offload
    where = (
        f"{offload.n_layers} of {offload.n_total} layers on {', '.join(offload.devices)}"
        if offload.n_layers
        else "on the CPU"
    )
    reads = (
        f"texts of up to {engine.n_ctx} tokens"
        if weights.only_embeds
        else f"context {engine.n_ctx} (n_ctx={model.config.n_ctx}), "
        f"KV cache {engine.options.cache_type_k}/{engine.options.cache_type_v}"
    )
    return (
        f"{weights.description}, {weights.n_parameters / 1e6:,.1f} M parameters, "
        f"{weights.n_bytes / 2**20:,.1f} MiB, {where} (n_gpu_layers={offload.requested}), {reads}"
    )
