"""This process's connection to Ray: one at a time, shared by its providers, ended by the last.

A Ray that somebody else in the process has begun is used and left alone.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import Any

import ray

from mofa_gguf.contract import AuthError, ConfigError, LLMError
from mofa_gguf_ray.errors import ClusterUnreachable
from mofa_gguf_ray.resources import Machine

log = logging.getLogger(__name__)

NAMESPACE = "mofa-gguf"
_LOCAL = "local"
_EXPECTED = (ConnectionError, ValueError, RuntimeError, TimeoutError)


@dataclass
class _State:
    n_users: int = 0
    is_ours: bool = False
    address: str | None = None


_lock = threading.Lock()
_state = _State()


def connect(address: str | None, *, least_cpus: float = 0) -> None:
    """Connect to the cluster at an address, or begin a Ray on this machine.

    To be answered with one ``disconnect``. ``least_cpus`` is what a Ray of our own has at least.

    Raises:
        ClusterUnreachable: there is no cluster.
        ConfigError: this process is connected to another.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    if wanted.startswith("ray://"):
        raise ConfigError(
            f"ray_address = {wanted!r}: Ray Client cannot stream answers; "
            "give the head's own address (host:6379)",
            field="ray_address",
        )
    with _lock:
        if ray.is_initialized():
            _check_same(wanted)
        else:
            _begin(wanted, least_cpus)
            _state.is_ours, _state.address = True, wanted
        _state.n_users += 1


def disconnect() -> None:
    """Leave the cluster; the last user ends the connection, and a Ray that was begun for it."""
    with _lock:
        _state.n_users -= 1
        if _state.n_users == 0 and _state.is_ours:
            _state.is_ours, _state.address = False, None
            if ray.is_initialized():
                ray.shutdown()


def machines() -> list[Machine]:
    """The machines of the cluster that are alive."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has: dict[str, Any] = node["Resources"]
            found.append(
                Machine(
                    node["NodeManagerAddress"],
                    cpus=has.get("CPU", 0.0),
                    gpus=has.get("GPU", 0.0),
                    memory_bytes=int(has.get("memory", 0)),
                )
            )
    return found


def _begin(wanted: str, least_cpus: float) -> None:
    options: dict[str, Any] = {}
    if wanted == _LOCAL:
        options["include_dashboard"] = False
        options["num_cpus"] = max(os.cpu_count() or 1, int(-(-least_cpus // 1)))
        # Nothing of this machine's doings is to be sent anywhere.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=wanted,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    except _EXPECTED as error:
        raise _unreachable(wanted, error) from error
    # Serve tells of its own doings on standard error otherwise.
    serve_log = logging.getLogger("ray.serve")
    if serve_log.level in (logging.NOTSET, logging.INFO):
        serve_log.setLevel(logging.WARNING)


def _unreachable(wanted: str, error: BaseException) -> LLMError:
    """What to tell of a failed connection."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) and len(causes) < 10:
        causes.append(cause)
    if any("Authentication" in f"{type(each).__name__} {each}" for each in causes):
        return AuthError(
            f"the Ray cluster at {wanted!r} wants its token; set RAY_AUTH_MODE=token, and "
            "RAY_AUTH_TOKEN or ~/.ray/auth_token as on its head"
        )
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ClusterUnreachable(
        f"Ray cannot be reached at {wanted!r} ({reason}); is it running (ray start), and is the "
        "address its head's (host:6379)?",
        address=wanted,
    )


def _check_same(wanted: str) -> None:
    """That the cluster this process is connected to is the one that is wanted."""
    here = ray.get_runtime_context().gcs_address
    if wanted in ("auto", _state.address, here):
        return
    if wanted == _LOCAL and not _state.is_ours:
        return  # the program has chosen its Ray
    raise ConfigError(
        f"ray_address = {wanted!r}: this process is connected to {here} already, and Ray allows "
        "one cluster a process",
        field="ray_address",
    )
