"""One local model on many machines: the engine of ``mofa-gguf`` as replicas of a Ray Serve app.

settings ── the options              resources ── what a replica takes of a machine
cluster ── the connection to Ray     deployment ── the app: begun, joined, ended
replica ── the engine over there     wire ── what the two sides say to each other
prefixes, policy, router ── which replica a request goes to
calls ── one request, with its cancellation and its losses
provider ── MoFA's contract over all of it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mofa_gguf_ray.errors import ReplicaLost
    from mofa_gguf_ray.provider import RayProvider
    from mofa_gguf_ray.settings import RayConfig
    from mofa_gguf_ray.wire import ReplicaReport

__all__ = ["RayConfig", "RayProvider", "ReplicaLost", "ReplicaReport"]

_HOMES = {
    "RayConfig": "mofa_gguf_ray.settings",
    "RayProvider": "mofa_gguf_ray.provider",
    "ReplicaLost": "mofa_gguf_ray.errors",
    "ReplicaReport": "mofa_gguf_ray.wire",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: finding the plugin must not load Ray."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
