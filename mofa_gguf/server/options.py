"""What a server is told when it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from mofa_gguf.contract import ConfigError

API_KEY_VARIABLE = "MOFA_GGUF_API_KEY"


@dataclass(frozen=True)
class ServerOptions:
    """Where and for whom a server answers. ``port`` 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = None
    """What clients must send as ``Authorization: Bearer KEY``; None lets everybody in."""
    allow_public: bool = False
    """Listen where other machines reach it, although there is no key."""
    cors_origins: tuple[str, ...] = ()
    """Web pages (``https://example.org``, or ``*``) whose scripts may ask."""
    max_body_bytes: int = 16 * 2**20
    shutdown_s: float = 10.0
    """How long running answers may go on after the signal to stop."""

    def check(self) -> None:
        """Raise ConfigError for a server that would be open to everybody, or an empty key."""
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigError(
                f"the API key is empty; give one, or unset {API_KEY_VARIABLE}", field="api_key"
            )
        if not (is_loopback(self.host) or self.api_key or self.allow_public):
            raise ConfigError(
                f"{self.host} is reached by other machines and there is no API key; give one "
                f"({API_KEY_VARIABLE}), listen on 127.0.0.1, or say --allow-public",
                field="host",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than localhost is not trusted."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
