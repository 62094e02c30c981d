"""What can go wrong inside the engine.

    EngineError
    ├── InvalidOption          an option outside its range (``field``)
    ├── ModelFileError         the file is missing, broken or no GGUF (``path``)
    │   └── UnsupportedModel   a sound file that this llama.cpp cannot run (``architecture``)
    ├── LibraryUnavailable     llama.cpp itself does not load (``problem``, ``remedy``)
    ├── DeviceUnavailable      a GPU was demanded and none can be used
    ├── OutOfMemory            weights, KV cache or buffers did not fit
    ├── PromptTooLong          more tokens than the context holds (``n_tokens``, ``n_ctx``)
    ├── QueueFull              too many waiting requests (``limit``)
    ├── SessionError           a saved conversation that cannot be written or used (``path``)
    ├── ConstraintError        a schema or grammar that cannot be enforced
    ├── DeadlineExceeded       the request's time ran out (``deadline_s``)
    ├── DecodeFailed           llama.cpp could not compute a batch (``status``)
    │   └── DeviceLost         a worker with layers of the model went away (``servers``)
    └── EngineClosed           the engine was closed while, or before, the request ran
        └── VocabClosed        a vocabulary is asked whose file was closed (``path``)

The engine knows nothing of MoFA's contract: ``provider`` turns these into its errors.
"""

from __future__ import annotations

from pathlib import Path


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class InvalidOption(EngineError):
    """An option or request parameter is outside what it may be."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class ModelFileError(EngineError):
    """The model file cannot be used: missing, truncated, or not a GGUF file."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = Path(path)
        self.problem = problem


class UnsupportedModel(ModelFileError):
    """The file is sound, but this build of llama.cpp cannot run it."""

    def __init__(self, path: Path | str, problem: str, *, architecture: str | None = None) -> None:
        super().__init__(path, problem)
        self.architecture = architecture


class LibraryUnavailable(EngineError):
    """llama.cpp itself does not load: it is missing, or not what its bindings expect."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"llama.cpp does not load ({problem}); {remedy}")
        self.problem = problem
        self.remedy = remedy


class DeviceUnavailable(EngineError):
    """A device that the options demand is not there."""


class OutOfMemory(EngineError):
    """Weights, KV cache or compute buffers could not be allocated, or would not fit."""

    def __init__(
        self, message: str, *, n_bytes: int | None = None, available_bytes: int | None = None
    ) -> None:
        super().__init__(message)
        self.n_bytes = n_bytes
        """What the load would take, where that is known."""
        self.available_bytes = available_bytes


class PromptTooLong(EngineError):
    """The prompt has more tokens than the context (or the batch, for embeddings) holds."""

    def __init__(self, n_tokens: int, n_ctx: int, *, what: str = "the context") -> None:
        super().__init__(
            f"the prompt has {n_tokens} tokens and {what} holds {n_ctx}; "
            "shorten it or load the model with a larger n_ctx"
        )
        self.n_tokens = n_tokens
        self.n_ctx = n_ctx


class QueueFull(EngineError):
    """The engine already has as many waiting requests as it accepts."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} requests are waiting already; try again later")
        self.limit = limit


class SessionError(EngineError):
    """A saved conversation cannot be written, read, or used with this model."""

    def __init__(self, path: Path | str, problem: str) -> None:
        super().__init__(f"the session {path} {problem}")
        self.path = Path(path)
        self.problem = problem


class ConstraintError(EngineError):
    """A JSON schema or grammar that cannot be compiled or enforced."""


class DeadlineExceeded(EngineError):
    """The request was not done within its time."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"the request was not done within {deadline_s:g} seconds")
        self.deadline_s = deadline_s


class DecodeFailed(EngineError):
    """llama.cpp could not compute a batch; only the requests in it fail."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DeviceLost(DecodeFailed):
    """A worker that held layers of the model went away; the model must be loaded anew."""

    def __init__(self, servers: tuple[str, ...]) -> None:
        super().__init__(
            f"the connection to {', '.join(servers)} was lost, and the model's layers there with "
            "it; the next request loads the model without"
        )
        self.servers = servers


class EngineClosed(EngineError):
    """The engine was closed before the request could finish."""

    def __init__(self, message: str = "the engine is closed") -> None:
        super().__init__(message)


class VocabClosed(EngineClosed):
    """A vocabulary was used after the file that it belongs to was closed."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"the vocabulary of {path} was closed; open the file again to use it")
        self.path = Path(path)
