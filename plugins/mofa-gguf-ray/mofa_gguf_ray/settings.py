"""Every option of a provider on Ray: those of the model, and those of its replicas."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mofa_gguf.contract import ConfigError
from mofa_gguf.quantities import read_bytes
from mofa_gguf.settings import BUNDLED, GGUFConfig

_MAX_PATH_CHARS = 4096

Routing = Literal["prefix", "power-of-two", "round-robin"]
Memory = Annotated[
    int | Literal["auto"],
    BeforeValidator(lambda value: value if value == "auto" else read_bytes(value)),
]


class ReplicaBounds(BaseModel):
    """How many replicas there are: as many as the requests need, between the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(default=1, ge=0)
    max: int = Field(ge=1)
    up_after_s: float = Field(default=30.0, ge=0)
    """For how long there have to be too many requests before there are more replicas."""
    down_after_s: float = Field(default=600.0, ge=0)
    """For how long there have to be too few before there are fewer."""

    @property
    def is_fixed(self) -> bool:
        """Whether the number never changes."""
        return self.min == self.max

    @model_validator(mode="after")
    def _in_order(self) -> ReplicaBounds:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is more than max ({self.max})")
        return self


def _read_bounds(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"min": max(value, 1), "max": value}  # fixed; 0 is refused by max
    return value


class ClusterOptions(BaseModel):
    """The options beside the model's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ray_address: str | None = Field(default=None, min_length=1)
    """The cluster's head ("host:6379"), or "auto" for one that runs on this machine; without it
    what ``RAY_ADDRESS`` says, else a Ray of its own on this machine."""
    replicas: Annotated[ReplicaBounds, BeforeValidator(_read_bounds)] = ReplicaBounds(max=1)
    """How many engines: a number, or ``{min, max}``: as many as the requests need."""
    cpus: float | None = Field(default=None, gt=0)
    """Cores that a replica reserves; its threads, too, unless ``n_threads`` says otherwise. By
    default ``n_threads``, else the cluster's cores shared among the replicas."""
    gpus: float = Field(default=0, ge=0)
    """GPUs that a replica reserves and sees."""
    memory: Memory = "auto"
    """Memory that a replica reserves: bytes, ``8GiB``, 0 for none, or "auto": what its load plan
    says."""
    max_replicas_per_node: int | None = Field(default=None, ge=1, le=100)
    """Most replicas on one machine."""
    deployment: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """A name under which several programs share the replicas: the first begins them, the others
    join. Without one, they are this provider's own."""
    keep: bool = False
    """Leave the replicas running when the provider that began them is closed."""
    routing: Routing = "prefix"
    """Which replica a request goes to: "prefix", where the beginning of its prompt was computed
    before, unless that replica is overloaded; or "power-of-two" (Ray's own) or "round-robin"."""
    retries_on_loss: int = Field(default=1, ge=0)
    """How often a request is sent again whose replica was lost, if nothing of its answer was
    given yet."""
    lost_after_s: float = Field(default=15.0, ge=3.0)
    """A replica that works on a request and is silent for so long is taken for lost; they say
    every second that they are there."""
    start_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds until the replicas have to be ready, and until one takes a request in."""


@dataclass(frozen=True, init=False)
class RayConfig:
    """Options of one :class:`~mofa_gguf_ray.RayProvider`: ``RayConfig(model="demo", replicas=2)``.

    ``gguf`` has the options of the provider "gguf", ``cluster`` the others. Raises ConfigError for
    an unknown option or a value out of range.
    """

    gguf: GGUFConfig
    cluster: ClusterOptions

    def __init__(self, **options: Any) -> None:
        ours, rest = _apart(options)
        self._set(_with_hints(lambda: GGUFConfig(**rest)), ours)

    @classmethod
    def from_options(
        cls,
        options: Mapping[str, object],
        base_dir: Path | None = None,
        *,
        chosen: Collection[str] = (),
    ) -> RayConfig:
        """Options of a config file, as ``GGUFConfig.from_options``. Raises ConfigError."""
        ours, rest = _apart(options)
        made = object.__new__(cls)
        made._set(_with_hints(lambda: GGUFConfig.from_options(rest, base_dir, chosen=chosen)), ours)
        return made

    def _set(self, gguf: GGUFConfig, ours: dict[str, Any]) -> None:
        object.__setattr__(self, "gguf", _absolute(gguf))
        object.__setattr__(self, "cluster", _cluster_options(ours))

    @property
    def slots(self) -> int:
        """Requests that a replica takes in: those it runs and those that wait there."""
        return self.gguf.max_parallel + self.gguf.max_queue

    @property
    def limit(self) -> int:
        """Requests that one provider may have in flight."""
        return self.slots * self.cluster.replicas.max

    def digest(self) -> str:
        """Sixteen hexadecimal digits for all that the replicas are made from."""
        ours = self.cluster.model_dump(
            mode="json",
            exclude={"ray_address", "deployment", "keep", "retries_on_loss", "lost_after_s",
                     "start_timeout_s"},
        )  # fmt: skip
        told = json.dumps([self.gguf.model_dump(mode="json"), ours], sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def _apart(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the cluster, and those of the model."""
    names = ClusterOptions.model_fields
    ours = {name: value for name, value in options.items() if name in names}
    return ours, {name: value for name, value in options.items() if name not in names}


def _with_hints(make: Any) -> GGUFConfig:
    """A model's options; a misspelt name is answered with ours as well."""
    try:
        config: GGUFConfig = make()
    except ConfigError as error:
        known = [*GGUFConfig.model_fields, *ClusterOptions.model_fields]
        if error.field is None or error.field in known or not _is_unknown(error):
            raise
        close = difflib.get_close_matches(error.field, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"there is no option {error.field!r} for a gguf-ray provider; {hint}"
            f"known are {', '.join(sorted(known))}",
            field=error.field,
            known=known,
        ) from error
    return config


def _is_unknown(error: ConfigError) -> bool:
    return error.message.startswith("there is no option")


def _cluster_options(options: dict[str, Any]) -> ClusterOptions:
    try:
        return ClusterOptions(**options)
    except ValidationError as error:
        problem = error.errors()[0]
        # Validators of unions put the branch's name into the place.
        field = str(problem["loc"][0])
        message = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{field} = {options.get(field)!r}: {message[0].lower()}{message[1:]}", field=field
        ) from error


def _absolute(gguf: GGUFConfig) -> GGUFConfig:
    """The options with the paths that this folder has made absolute: replicas run elsewhere."""
    named = {name: getattr(gguf, name) for name in ("draft_model", "chat_template", "cache_dir")}
    if not gguf.models:
        named["model"] = gguf.model
    changes: dict[str, Any] = {name: _path_here(value) for name, value in named.items()}
    changes["models"] = {
        name: {**table, "model": _path_here(table["model"])} for name, table in gguf.models.items()
    }
    changes["lora"] = tuple(
        dataclasses.replace(each, path=_path_here(each.path)) for each in gguf.lora
    )
    return gguf.model_copy(
        update={name: value for name, value in changes.items() if value != getattr(gguf, name)}
    )


def _path_here(value: Any) -> Any:
    """A relative path that exists made absolute, everything else as it is."""
    if value is None or value == BUNDLED or len(str(value)) > _MAX_PATH_CHARS:
        return value
    try:
        exists = Path(value).exists()
    except (OSError, ValueError):  # a template's text
        return value
    return type(value)(Path(value).absolute()) if exists else value


def whole_cores(cpus: float) -> int:
    """The threads that fit to reserved cores."""
    return max(1, math.floor(cpus))
