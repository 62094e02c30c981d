"""Every option of a GGUF provider, from a caller, the environment or a config file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from mofa_gguf.config_errors import config_error
from mofa_gguf.config_models import check_tables, heard_of_chosen, with_tables
from mofa_gguf.config_paths import BUNDLED as BUNDLED
from mofa_gguf.config_paths import Folder, PathText, paths_from
from mofa_gguf.config_values import (
    Adapters,
    AtOnce,
    Budget,
    Context,
    Count,
    GpuLayers,
    Index,
    KeepAlive,
    Threads,
)
from mofa_gguf.contract import ConfigError
from mofa_gguf.engine.options import (
    CacheType,
    EngineOptions,
    FlashAttention,
    Numa,
    Pooling,
    Probe,
    Speculation,
    SplitMode,
)
from mofa_gguf.quantities import FOREVER

ENVIRONMENT_PREFIX = "MOFA_GGUF_"

# MoFA's LLMConfig keys that mean one of ours.
_MOFA_NAMES = {"default_model": "model", "timeout_secs": "timeout_s"}
# MoFA's LLMConfig keys that its client, not a provider, acts on.
_NOT_OURS = frozenset({"max_retries"})


class _Environment(EnvSettingsSource):
    """The variables of options that the caller leaves out: no table is made of both."""

    def __init__(self, settings: type[BaseSettings], given: Collection[str]) -> None:
        super().__init__(settings)
        self._given = frozenset(given)

    def __call__(self) -> dict[str, Any]:
        """Their values by the options' names."""
        return {n: value for n, value in super().__call__().items() if n not in self._given}


class GGUFConfig(BaseSettings):
    """Options of one :class:`~mofa_gguf.GGUFProvider`.

    What the caller leaves out comes from ``MOFA_GGUF_<OPTION>`` environment variables, then from
    the defaults here; an empty variable says nothing. Raises ConfigError for an unknown option or
    a value out of range.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    model: PathText
    """A .gguf file, a checkpoint folder, a hub id (``org/name``), or ``demo``.

    With ``models``: the name of the one that requests without a model get, by default the first.
    """
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Several models, each by the name that requests use: its ``model``, or a table with its
    ``model`` and whatever of the options here is different for it."""
    name: str | None = None
    """What the model is called in requests and answers; by default the file's or folder's name."""
    quantization: str = "Q8_0"
    """What a checkpoint folder is converted to on first use."""
    cache_dir: Folder | None = None
    """Where converted and downloaded models are kept; by default the user's cache folder."""
    offline: bool = False
    """Never download, even for a hub id."""
    chat_template: str | None = None
    """A chat template in place of the model's own: Jinja source, or the path of a .jinja file."""

    n_ctx: Context = "auto"
    """Tokens of context; "auto" is what the model was trained for, bounded by memory."""
    n_batch: AtOnce = 512
    """Most tokens computed in one step of prefill."""
    n_threads: Threads | None = None
    """Threads for decoding; by default the physical cores this process may use."""
    n_threads_batch: Threads | None = None
    """Threads for prefill; by default as many as for decoding."""
    n_gpu_layers: GpuLayers = "auto"
    """Layers on the GPU: a number, "all" (or -1), or "auto": as many as fit."""
    require_gpu: bool = False
    """Fail with ProviderNotSupported, rather than run on the CPU, when there is no GPU."""
    main_gpu: Index = 0
    split_mode: SplitMode = "layer"
    tensor_split: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Share of the model for each GPU, in the order of the devices."""
    flash_attn: FlashAttention = "auto"
    cache_type_k: CacheType = "f16"
    """Type of the KV cache's keys; "auto" is f16, or q8_0 where f16 does not fit."""
    cache_type_v: CacheType = "f16"
    """Type of the KV cache's values."""
    use_mmap: bool = True
    """Map the model's file into memory rather than read it."""
    use_mlock: bool = False
    """Keep the weights from being swapped out, as far as the limit on locked memory allows."""
    hugepages: bool = True
    """Ask Linux for huge pages for weights that are not mapped from the file."""
    numa: Numa = "off"
    """How threads are spread over a machine of several memory nodes; the first model decides."""
    probe: Probe = "auto"
    """Whether another process loads a file for a test before this one does: "auto", where its
    architecture is not known through and through, "always" or "never". Once for each file."""
    rpc_servers: tuple[str, ...] = ()
    """Workers ("host:port", see ``mofa-gguf worker``) whose devices take layers, too."""
    lora: Adapters = ()
    """GGUF adapters to add to the weights: a path, ``{"path": ..., "scale": ...}``, or several."""

    max_parallel: int = Field(default=16, ge=1, le=256)
    """Requests that run at once, sharing one KV cache; more wait."""
    max_queue: Count = 64
    """Requests that may wait; one more gets RateLimited."""
    prefix_memory: Budget = "auto"
    """Host memory for computed prefixes that gave way in the KV cache: bytes, ``512MiB``, 0 for
    none, or "auto": a tenth of what is free, 2 GiB at most."""
    speculation: Speculation = "auto"
    """Whether tokens are guessed ahead, from what prompt and answer have said before or by a draft
    model, and checked in one step: "auto", where that is faster (but not for requests with a seed),
    "prompt-lookup" or "draft-model", wherever there is such a guess, or "off". What is said does
    not depend on it."""
    draft_model: PathText | None = None
    """A small model with the same vocabulary that guesses tokens ahead: a file, folder or hub id
    like ``model``. It is used where that is measured to be faster, and takes memory of its own."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Seconds a request may take after the model is loaded; then it gets Timeout."""
    default_temperature: float | None = Field(default=None, ge=0, le=2)
    """Where a request names none; else the model's own default, else 0.7."""
    default_max_tokens: Count | None = None
    """Where a request names none; else the answer may fill the context."""

    memory_budget: Budget = "auto"
    """What the models may take together: bytes, ``8GiB``, or "auto": most of what is free.

    The least recently used that nobody uses are unloaded to stay within it. A model that is larger
    than a given budget is refused with QuotaExceeded.
    """
    memory_wait_s: float = Field(default=60.0, ge=0)
    """Seconds a request waits for memory that models in use take; then it gets QuotaExceeded."""
    keep_alive: KeepAlive = FOREVER
    """How long a model stays loaded when nobody uses it: seconds, ``5m``, or -1: for ever."""
    warm_up: bool | tuple[str, ...] = False
    """Load when the provider is made, in the background, and compute one token: every model, or
    those named here."""

    pooling: Pooling = "auto"
    """How token vectors become one embedding; "auto" is what the model's file says, else mean."""
    n_embedding_batch: AtOnce = 2048
    """Most tokens embedded at once, and the longest text (or the trained context, if less)."""
    embedding_overflow: Literal["error", "truncate"] = "error"
    """A text longer than the model embeds: ContextLengthExceeded, or cut at the end."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except (ValidationError, SettingsError) as error:
            raise self._config_error(error) from error
        self._check_models()

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Several models: text stands for a table with that model, the first is the default."""
        return with_tables(values)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller says, then the environment."""
        assert isinstance(init_settings, InitSettingsSource)
        environment = _Environment(settings_cls, init_settings.init_kwargs)
        return (init_settings, environment, dotenv_settings, file_secret_settings)

    def each(self) -> dict[str, GGUFConfig]:
        """With ``models``: the options of each, by its name; empty without."""
        inherited = {n: getattr(self, n) for n in self.model_fields_set - {"name", "models"}}
        each: dict[str, GGUFConfig] = {}
        for name, table in self.models.items():
            try:
                config = _OneOfSeveral(
                    **{**inherited, "warm_up": self._warms_up(name), **table, "name": name}
                )
            except ConfigError as error:
                raise ConfigError(
                    f"models.{name}: {error.message}", field=f"models.{name}.{error.field}"
                ) from error
            each[name] = config
        return each

    def _warms_up(self, name: str) -> bool:
        return self.warm_up if isinstance(self.warm_up, bool) else name in self.warm_up

    def _check_models(self) -> None:
        """What can only be seen with all options: the models' tables and the names of models."""
        if not self.models:
            if self.speculation == "draft-model" and self.draft_model is None:
                raise ConfigError(
                    'speculation = "draft-model" needs a draft_model', field="speculation"
                )
            return
        if self.name is not None:
            raise ConfigError("name is for one model; models have their names", field="name")
        if self.draft_model is not None:
            raise ConfigError(
                "draft_model goes with one model; put it into the table of the model it is for",
                field="draft_model",
            )
        check_tables(self.models, default=self.model, warm_up=self.warm_up)
        self.each()

    @classmethod
    def from_options(
        cls,
        options: Mapping[str, object],
        base_dir: Path | None = None,
        *,
        chosen: Collection[str] = (),
    ) -> GGUFConfig:
        """Options of a config file: the environment goes before them, MoFA's names are understood.

        A relative path in ``model``, ``draft_model``, ``lora`` or ``cache_dir`` counts from
        ``base_dir``. Of the options named in ``chosen`` the environment has nothing to say: one
        that is not given has its default; and of models that were not chosen neither. Raises
        ConfigError.
        """
        values: dict[str, Any] = {}
        for key, value in options.items():
            if key not in _NOT_OURS:
                values.setdefault(_MOFA_NAMES.get(key, key), value)
        if "model" in options:
            values["model"] = options["model"]
        if base_dir is not None:
            values = paths_from(values, base_dir)
        try:
            heard = EnvSettingsSource(cls)()
        except SettingsError as error:
            raise cls._config_error(error) from error
        if "models" in chosen:
            heard = heard_of_chosen(heard, values)
        values.update({name: value for name, value in heard.items() if name not in chosen})
        defaults = {
            name: field.get_default(call_default_factory=True)
            for name, field in cls.model_fields.items()
            if name in chosen and not field.is_required()
        }
        return cls(**{**defaults, **values})

    @classmethod
    def _config_error(cls, error: ValidationError | SettingsError) -> ConfigError:
        return config_error(error, known=cls.model_fields, environment_prefix=ENVIRONMENT_PREFIX)

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
            hugepages=self.hugepages,
            numa=self.numa,
            rpc_servers=self.rpc_servers,
            lora=self.lora,
            probe=self.probe,
            pooling=self.pooling,
            n_embedding_batch=self.n_embedding_batch,
            max_parallel=self.max_parallel,
            max_queue=self.max_queue,
            prefix_memory=self.prefix_memory,
            speculation=self.speculation,
        )


class _OneOfSeveral(GGUFConfig):
    """The options of one of several models: the environment was heard for all of them."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller says, and nothing else."""
        return (init_settings,)
