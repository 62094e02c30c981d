"""What can go wrong beyond one machine, in the contract's terms, and errors that travel.

NetworkError (contract)
├── ReplicaLost         a replica died or fell silent with a request (``replica``, ``n_pieces``)
└── ClusterUnreachable  no Ray at the address (``address``)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mofa_gguf import contract
from mofa_gguf.contract import LLMError, NetworkError, Other, ProviderNotSupported

_KINDS: dict[str, type[LLMError]] = {
    name: value
    for name, value in vars(contract).items()
    if isinstance(value, type) and issubclass(value, LLMError)
}
_PLAIN = (str, int, float, bool, Path, type(None))


class ReplicaLost(NetworkError):
    """A replica died, or fell silent, while it worked on a request.

    ``replica`` is its name, None where it had not said it yet; ``n_pieces`` is how much of the
    answer had been given.
    """

    def __init__(self, message: str, *, replica: str | None = None, n_pieces: int = 0) -> None:
        super().__init__(message)
        self.replica = replica
        self.n_pieces = n_pieces


class ClusterUnreachable(NetworkError):
    """There is no Ray cluster at ``address``, or it does not answer."""

    def __init__(self, message: str, *, address: str | None = None) -> None:
        super().__init__(message)
        self.address = address


@dataclass(frozen=True)
class Failure:
    """An error of the contract as plain values: its class, its sentence, its data."""

    kind: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """What to send of an error. One that is not the contract's becomes an ApiError."""
        if not isinstance(error, LLMError):
            told = f"the replica failed in a way it should not ({type(error).__name__}: {error})"
            return cls("ApiError", told, {"code": "500"})
        kind = next(each.__name__ for each in type(error).__mro__ if each.__name__ in _KINDS)
        data = {
            name: value
            for name, value in vars(error).items()
            if name != "message" and not name.startswith("_") and _is_plain(value)
        }
        return cls(kind, error.message, data)

    def error(self) -> LLMError:
        """The same error: the contract's class, with its data."""
        error = _KINDS.get(self.kind, Other)(self.message)
        for name, value in self.data.items():
            setattr(error, name, value)
        return error


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(item, _PLAIN) for item in value)
    return isinstance(value, _PLAIN)


def ray_missing(error: ImportError) -> LLMError:
    """The error of an environment without Ray."""
    return ProviderNotSupported(
        f"the provider kind 'gguf-ray' needs Ray Serve, and it cannot be imported ({error}); "
        "install it: pip install 'ray[serve]'",
        provider="gguf-ray",
    )
