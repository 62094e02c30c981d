"""Errors of the host beyond the contract's own.

ConfigError (contract)
├── KindTaken           a plugin registers a provider kind or alias that another has
└── (everything about configuration files is a plain ConfigError)
Other (contract)
└── ToolRoundsExceeded  the model goes on calling tools
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mofa_gguf.contract.errors import ConfigError, Other
from mofa_gguf.contract.messages import ChatMessage

if TYPE_CHECKING:
    from mofa_gguf.host.tool_loop import ToolCallRecord


class KindTaken(ConfigError):
    """Two sources want the same provider kind or alias; ``name``, ``holder`` and ``claimant``."""

    def __init__(self, name: str, *, holder: str, claimant: str) -> None:
        super().__init__(
            f"the provider kind {name!r} of {claimant} is taken by {holder}; "
            "uninstall one of them, or register under another name"
        )
        self.name = name
        self.holder = holder
        self.claimant = claimant

    def __reduce__(self) -> tuple[object, ...]:
        return (_remake_kind_taken, (self.name, self.holder, self.claimant))


def _remake_kind_taken(name: str, holder: str, claimant: str) -> KindTaken:
    return KindTaken(name, holder=holder, claimant=claimant)


class ToolRoundsExceeded(Other):
    """A model called tools in more rounds than allowed.

    ``limit`` is how many were; ``messages`` the whole conversation, to the calls that were not run;
    ``calls`` those that were.
    """

    def __init__(
        self,
        limit: int,
        *,
        messages: Sequence[ChatMessage] = (),
        calls: Sequence[ToolCallRecord] = (),
    ) -> None:
        super().__init__(f"Max tool rounds ({limit}) exceeded")
        self.limit = limit
        self.messages = list(messages)
        self.calls = list(calls)

    def __reduce__(self) -> tuple[object, ...]:
        return (ToolRoundsExceeded, (self.limit,), self.__dict__)
