"""The rooms' errors as the contract's, translated once, at the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mofa_gguf import contract
from mofa_gguf.chat import errors as chat
from mofa_gguf.convert import errors as convert
from mofa_gguf.engine import errors as engine
from mofa_gguf.provider.actions import NoRoom
from mofa_gguf.store import errors as store


class NotEnoughMemory(engine.OutOfMemory):
    """A model does not fit into the budget beside those in use, or at all."""

    def __init__(self, message: str, *, n_bytes_needed: int, n_bytes_free: int) -> None:
        super().__init__(message)
        self.n_bytes_needed = n_bytes_needed
        self.n_bytes_free = n_bytes_free


def no_room_error(why: NoRoom) -> NotEnoughMemory:
    """One sentence with the numbers."""
    budget = _size(why.budget_bytes)
    message = f"{why.model} needs about {_size(why.n_bytes)} and the memory budget is {budget}"
    if why.waited_s is None:
        message += "; raise memory_budget, or use a smaller n_ctx or quantization"
    else:
        others = ", ".join(f"{each.name} ({_size(each.n_bytes)})" for each in why.in_use)
        message += (
            f", of which models in use took too much for {why.waited_s:g} s: {others}; "
            "try again later, or raise memory_budget"
        )
    taken = sum(tenant.n_bytes for tenant in why.in_use)
    return NotEnoughMemory(
        message, n_bytes_needed=why.n_bytes, n_bytes_free=max(0, why.budget_bytes - taken)
    )


def load_error(model: str, error: BaseException) -> Exception:
    """What those are told who wait for a model that could not be loaded.

    What no room of ours raises is a bug, or a system that has no more to give: an EngineError then.
    """
    if isinstance(error, Exception) and isinstance(error, (*_KNOWN, contract.LLMError)):
        return error
    told = engine.EngineError(f"{model} could not be loaded ({type(error).__name__}: {error})")
    told.__cause__ = error
    return told


def _size(n_bytes: int) -> str:
    """Bytes in the unit that reads best."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"


_Translator = Callable[[Any, str], contract.LLMError]

# The first class that fits decides, so subclasses stand before their bases.
_TRANSLATIONS: tuple[tuple[type[Exception], _Translator], ...] = (
    (engine.UnsupportedModel, lambda e, m: contract.ProviderNotSupported(m, provider="gguf")),
    (engine.ModelFileError, lambda e, m: contract.ConfigError(m, path=e.path)),
    (engine.SessionError, lambda e, m: contract.ConfigError(m, path=e.path)),
    (engine.LibraryUnavailable, lambda e, m: contract.ProviderNotSupported(m, provider="gguf")),
    (engine.DeviceUnavailable, lambda e, m: contract.ProviderNotSupported(m, provider="gguf")),
    (
        NotEnoughMemory,
        lambda e, m: contract.QuotaExceeded(
            m, n_bytes_needed=e.n_bytes_needed, n_bytes_free=e.n_bytes_free
        ),
    ),
    (engine.OutOfMemory, lambda e, m: contract.QuotaExceeded(m)),
    (
        engine.PromptTooLong,
        lambda e, m: contract.ContextLengthExceeded(m, n_tokens=e.n_tokens, n_ctx=e.n_ctx),
    ),
    (engine.QueueFull, lambda e, m: contract.RateLimited(m, limit=e.limit)),
    (engine.DeadlineExceeded, lambda e, m: contract.Timeout(m, timeout_s=e.deadline_s)),
    (engine.InvalidOption, lambda e, m: contract.ConfigError(m, field=e.field)),
    (engine.ConstraintError, lambda e, m: contract.ConfigError(m, field="response_format")),
    (engine.EngineClosed, lambda e, m: contract.Other(m)),
    (engine.EngineError, lambda e, m: contract.ApiError(m, code="500")),
    (chat.UnsupportedContent, lambda e, m: contract.ProviderNotSupported(m, provider="gguf")),
    # MoFA has one word for what is wrong with a request and for what is wrong with an option; the
    # field tells them apart.
    (chat.TemplateRefused, lambda e, m: contract.ConfigError(m, field="messages")),
    (chat.TemplateFailed, lambda e, m: contract.ConfigError(m, field="messages")),
    (chat.TemplateError, lambda e, m: contract.ConfigError(m)),
    (store.ModelMissing, lambda e, m: contract.ModelNotFound(m, model=e.model)),
    (store.DownloadFailed, lambda e, m: contract.NetworkError(m)),
    (store.StoreError, lambda e, m: contract.ConfigError(m)),
    (
        convert.UnsupportedArchitecture,
        lambda e, m: contract.ProviderNotSupported(m, provider="gguf", known=e.known),
    ),
    (convert.ConversionError, lambda e, m: contract.ConfigError(m)),
)
_KNOWN = tuple(kind for kind, _ in _TRANSLATIONS)


def translate(error: Exception) -> contract.LLMError:
    """The contract's error for one of the rooms' errors."""
    for kind, make in _TRANSLATIONS:
        if isinstance(error, kind):
            return make(error, str(error))
    raise TypeError(f"{type(error).__name__} is no error of the rooms")


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the rooms that pass this block become the contract's."""
    try:
        yield
    except _KNOWN as error:
        raise translate(error) from error
