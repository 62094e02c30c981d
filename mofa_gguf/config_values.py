"""The kinds of values that options have, each with what it may be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from mofa_gguf.adapters import read_adapters
from mofa_gguf.engine.options import LoraAdapter
from mofa_gguf.quantities import read_bytes, read_seconds

_MAX_INT32 = 2**31 - 1
# Beyond, llama.cpp takes minutes to say what such a batch would need.
_MOST_AT_ONCE = 2**20

Context = Annotated[int, Field(ge=1, le=_MAX_INT32)] | Literal["auto"]
AtOnce = Annotated[int, Field(ge=1, le=_MOST_AT_ONCE)]
Count = Annotated[int, Field(ge=1, le=_MAX_INT32)]
Index = Annotated[int, Field(ge=0, le=_MAX_INT32)]
GpuLayers = Annotated[int, Field(ge=-1, le=_MAX_INT32)] | Literal["auto", "all"]
Threads = Annotated[int, Field(ge=1, le=1024)]
Budget = Annotated[
    int | Literal["auto"],
    BeforeValidator(lambda value: value if value == "auto" else read_bytes(value)),
]
KeepAlive = Annotated[float, BeforeValidator(read_seconds)]
Adapters = Annotated[tuple[LoraAdapter, ...], NoDecode, BeforeValidator(read_adapters)]
