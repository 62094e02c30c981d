"""Errors of the host beyond the contract's own.

ConfigError (contract)
├── KindTaken           a plugin registers a provider kind or alias that another has
└── (everything about configuration files is a plain ConfigError)
"""

from __future__ import annotations

from mofa_gguf.contract.errors import ConfigError


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
