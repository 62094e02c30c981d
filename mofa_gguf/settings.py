"""Every option of a GGUF provider, from a caller, the environment or a config file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from mofa_gguf.contract import ConfigError
from mofa_gguf.engine.options import CacheType, EngineOptions, FlashAttention, Pooling, SplitMode

ENVIRONMENT_PREFIX = "MOFA_GGUF_"

BUNDLED = "demo"
"""The model that comes with the package, whatever files there are."""

# MoFA's LLMConfig keys that mean one of ours.
_MOFA_NAMES = {"default_model": "model", "timeout_secs": "timeout_s"}
# MoFA's LLMConfig keys that its client, not a provider, acts on.
_NOT_OURS = frozenset({"max_retries"})

Context = Annotated[int, Field(ge=1)] | Literal["auto"]
GpuLayers = Annotated[int, Field(ge=-1)] | Literal["auto", "all"]
Threads = Annotated[int, Field(ge=1, le=1024)]


class GGUFConfig(BaseSettings):
    """Options of one :class:`~mofa_gguf.GGUFProvider`.

    What the caller leaves out comes from ``MOFA_GGUF_<OPTION>`` environment variables, then from
    the defaults here. Raises ConfigError for an unknown option or a value out of range.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True, protected_namespaces=()
    )

    model: str = Field(min_length=1)
    """A .gguf file, a checkpoint folder, a hub id (``org/name``), or ``demo``."""
    name: str | None = None
    """What the model is called in requests and answers; by default the file's or folder's name."""
    quantization: str = "Q8_0"
    """What a checkpoint folder is converted to on first use."""
    cache_dir: Path | None = None
    """Where converted and downloaded models are kept; by default the user's cache folder."""
    offline: bool = False
    """Never download, even for a hub id."""
    chat_template: str | None = None
    """A chat template in place of the model's own: Jinja source, or the path of a .jinja file."""

    n_ctx: Context = "auto"
    """Tokens of context; "auto" is what the model was trained for, bounded by memory."""
    n_batch: int = Field(default=512, ge=1)
    """Most tokens computed in one step of prefill."""
    n_threads: Threads | None = None
    """Threads for decoding; by default the physical cores this process may use."""
    n_threads_batch: Threads | None = None
    """Threads for prefill; by default as many as for decoding."""
    n_gpu_layers: GpuLayers = "auto"
    """Layers on the GPU: a number, "all" (or -1), or "auto": as many as fit."""
    require_gpu: bool = False
    """Fail with ProviderNotSupported, rather than run on the CPU, when there is no GPU."""
    main_gpu: int = Field(default=0, ge=0)
    split_mode: SplitMode = "layer"
    tensor_split: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Share of the model for each GPU, in the order of the devices."""
    flash_attn: FlashAttention = "auto"
    cache_type_k: CacheType = "f16"
    """Type of the KV cache's keys."""
    cache_type_v: CacheType = "f16"
    """Type of the KV cache's values."""
    use_mmap: bool = True
    use_mlock: bool = False

    max_parallel: int = Field(default=16, ge=1, le=256)
    """Requests that run at once, sharing one KV cache; more wait."""
    max_queue: int = Field(default=64, ge=1)
    """Requests that may wait; one more gets RateLimited."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds a request may take after the model is loaded; then it gets Timeout."""
    default_temperature: float | None = Field(default=None, ge=0, le=2)
    """Where a request names none; else the model's own default, else 0.7."""
    default_max_tokens: int | None = Field(default=None, ge=1)
    """Where a request names none; else the answer may fill the context."""

    pooling: Pooling = "auto"
    """How token vectors become one embedding; "auto" is what the model's file says, else mean."""
    n_embedding_batch: int = Field(default=2048, ge=1)
    """Most tokens embedded at once, and the longest text (or the trained context, if less)."""
    embedding_overflow: Literal["error", "truncate"] = "error"
    """A text longer than the model embeds: ContextLengthExceeded, or cut at the end."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise _config_error(error) from error

    @classmethod
    def from_options(
        cls, options: Mapping[str, object], base_dir: Path | None = None
    ) -> GGUFConfig:
        """Options of a config file: the environment goes before them, MoFA's names are understood.

        A relative path in ``model`` or ``cache_dir`` counts from ``base_dir``. Raises ConfigError.
        """
        values: dict[str, Any] = {}
        for key, value in options.items():
            if key not in _NOT_OURS:
                values.setdefault(_MOFA_NAMES.get(key, key), value)
        if "model" in options:
            values["model"] = options["model"]
        if base_dir is not None:
            for key in ("model", "cache_dir"):
                values[key] = _from_folder(values.get(key), base_dir)
            values = {key: value for key, value in values.items() if value is not None}
        values.update(EnvSettingsSource(cls)())
        return cls(**values)

    def engine_options(self) -> EngineOptions:
        """The part of the options that the engine acts on."""
        return EngineOptions(
            n_ctx=self.n_ctx,
            n_batch=self.n_batch,
            n_threads=self.n_threads,
            n_threads_batch=self.n_threads_batch,
            n_gpu_layers=self.n_gpu_layers,
            require_gpu=self.require_gpu,
            main_gpu=self.main_gpu,
            split_mode=self.split_mode,
            tensor_split=self.tensor_split,
            flash_attn=self.flash_attn,
            cache_type_k=self.cache_type_k,
            cache_type_v=self.cache_type_v,
            use_mmap=self.use_mmap,
            use_mlock=self.use_mlock,
            pooling=self.pooling,
            n_embedding_batch=self.n_embedding_batch,
            max_parallel=self.max_parallel,
            max_queue=self.max_queue,
        )


def _from_folder(value: object, base_dir: Path) -> object:
    """A relative path made absolute; hub ids and ``demo`` are left as they are.

    ``models/x`` is a path where ``base_dir`` has the file or at least the folder ``models``.
    """
    if not isinstance(value, str | Path) or str(value) in ("", BUNDLED):
        return value
    path = Path(value).expanduser()
    if path.is_absolute():
        return str(path)
    looks_like_path = str(value).startswith(".") or path.suffix == ".gguf"
    in_folder = len(path.parts) > 1 and (base_dir / path).parent.is_dir()
    if looks_like_path or in_folder or (base_dir / path).exists():
        return str(base_dir / path)
    return value


def _config_error(error: ValidationError) -> ConfigError:
    """The first problem of a validation, as one sentence that names the option."""
    # A misspelt option is the cause where another is missing, so it is told first.
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    field = str(problem["loc"][0]) if problem["loc"] else "options"
    known = sorted(GGUFConfig.model_fields)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return ConfigError(
            f"there is no option {field!r} for a gguf provider; {hint}known are {', '.join(known)}",
            field=field,
        )
    if problem["type"] == "missing":
        return ConfigError(
            f"the option {field!r} is missing; give it, or set {ENVIRONMENT_PREFIX}{field.upper()}",
            field=field,
        )
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return ConfigError(f"{field} = {problem['input']!r}: {message}", field=field)
