"""The Serve application that the replicas are: begun, joined, ended. Everything here blocks."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.api import RunTarget
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from mofa_gguf.contract import ApiError, ConfigError, LLMError, ProviderNotSupported, Timeout
from mofa_gguf.settings import GGUFConfig
from mofa_gguf_ray import cluster
from mofa_gguf_ray.errors import Failure
from mofa_gguf_ray.owner import Owner
from mofa_gguf_ray.replica import Replica
from mofa_gguf_ray.resources import (
    Planned,
    Share,
    check_room,
    cores_for,
    plan_here,
    replicas_on_one,
    settled,
)
from mofa_gguf_ray.router import ROUTERS
from mofa_gguf_ray.settings import RayConfig, ReplicaBounds
from mofa_gguf_ray.wire import Description

log = logging.getLogger(__name__)

_NAME = "gguf"
_POLL_S = 0.2
_HEALTH_PERIOD_S = 5.0
_HEALTH_TIMEOUT_S = 30.0
_GRACE_S = 5.0
_DRAIN_S = 300.0
"""How long a replica that is not needed any more goes on with the answers it has begun."""
_LOOK_BACK_S = (12.0, 30.0)
"""Over what time requests are counted, at least and at most; Ray hears of them every 10 s."""
_ROOM_BESIDES = 16
"""Requests that a replica takes in beyond its ``slots``: questions about itself, and what several
programs send at once or what is there before there are more replicas. Its engine queues them, too:
what Serve has let in is never refused."""
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


@dataclass(frozen=True)
class Deployment:
    """A running application: its name, how to reach it, and what all of its replicas are."""

    app: str
    handle: Any
    description: Description
    is_ours: bool

    def leave(self, *, keep: bool) -> None:
        """Stop using it; one that was begun here ends, unless it is to be kept."""
        try:
            self.handle.shutdown()
            if self.is_ours and not keep:
                _end(self.app)
        except Exception as error:  # noqa: BLE001 - a cluster that is gone has ended it
            log.warning("%s could not be ended: %s", self.app, error)


def begin_or_join(config: RayConfig, check: Callable[[], None]) -> Deployment:
    """The deployment that a configuration asks for; needs a connection.

    ``check`` is called often meanwhile, and what it raises ends the work.

    Raises:
        ConfigError: the deployment runs with other options.
        QuotaExceeded: a replica would fit on no machine.
        Timeout: it was not ready in time.
        LLMError: what finding and planning the model raises; ApiError for other failures.
    """
    deadline_s = time.monotonic() + config.cluster.start_timeout_s
    app = config.cluster.deployment or f"mofa-gguf-{uuid.uuid4().hex[:12]}"
    serve.start(proxy_location="Disabled")  # no HTTP; does nothing where Serve runs already
    is_ours = app not in serve.status().applications

    def still_wanted() -> None:
        check()
        if time.monotonic() >= deadline_s:
            raise _late(config)

    if is_ours:
        _begin(app, config, still_wanted)
    try:
        _wait_until_ready(app, config, deadline_s, check)
        handle = serve.get_app_handle(app)
        description = _describe(handle, deadline_s)
        if description.digest != config.digest():
            raise ConfigError(
                f"the deployment {app!r} runs with other options; use the same ones, or another "
                "name",
                field="deployment",
            )
    except BaseException:
        if is_ours:
            serve.delete(app, _blocking=False)
        raise
    return Deployment(app, handle, description, is_ours)


def _begin(app: str, config: RayConfig, check: Callable[[], None]) -> None:
    options = config.cluster
    there = cluster.machines()
    cpus = cores_for(config.gguf, options, there)
    share, gguf = _planned(config, Share(cpus, options.gpus), len(there), check)
    check_room(share, there)
    gguf = gguf.model_copy(update={"max_queue": gguf.max_queue + _ROOM_BESIDES})
    more = _how_many(options.replicas, config.gguf.max_parallel)
    if options.max_replicas_per_node is not None:
        more["max_replicas_per_node"] = options.max_replicas_per_node
    router = RequestRouterConfig(
        request_router_class=ROUTERS[options.routing],
        request_router_kwargs=(
            {"slots": config.gguf.max_parallel} if options.routing == "prefix" else {}
        ),
    )
    made = serve.deployment(Replica, name=_NAME).options(
        ray_actor_options=share.actor_options(),
        max_ongoing_requests=config.slots + _ROOM_BESIDES,
        request_router_config=router,
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=_POLL_S,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        **more,
    )
    owner = None if options.keep else Owner.this_program()
    target = RunTarget(made.bind(gguf, config.digest(), owner), name=app, route_prefix=None)
    log.info("beginning %s: each replica reserves %s", app, share)
    serve.run_many([target], wait_for_applications_running=False)


def _how_many(bounds: ReplicaBounds, n_at_once: int) -> dict[str, Any]:
    """Serve's options for the number of replicas, of which each runs ``n_at_once`` requests."""
    if bounds.is_fixed:
        return {"num_replicas": bounds.max, "graceful_shutdown_timeout_s": _GRACE_S}
    least_s, most_s = _LOOK_BACK_S
    wanted_s = min(bounds.up_after_s, bounds.down_after_s)
    scaling = AutoscalingConfig(
        min_replicas=bounds.min,
        max_replicas=bounds.max,
        target_ongoing_requests=n_at_once,
        upscale_delay_s=bounds.up_after_s,
        downscale_delay_s=bounds.down_after_s,
        look_back_period_s=max(least_s, min(most_s, wanted_s)),
    )
    return {"autoscaling_config": scaling, "graceful_shutdown_timeout_s": _DRAIN_S}


def _end(app: str) -> None:
    """End an application; what others have in flight there does not hold us up for long."""
    serve.delete(app, _blocking=False)
    deadline_s = time.monotonic() + 2 * _GRACE_S
    while app in serve.status().applications:
        if time.monotonic() >= deadline_s:
            log.warning("%s ends when the answers that others still get from it are whole", app)
            return
        time.sleep(_POLL_S)


def _planned(
    config: RayConfig, share: Share, n_machines: int, check: Callable[[], None]
) -> tuple[Share, GGUFConfig]:
    """What a replica reserves and is made with, as a machine of the cluster plans it."""
    options = config.cluster
    task = ray.remote(plan_here).options(num_cpus=0, num_gpus=share.gpus, max_retries=1)
    result = task.remote(config.gguf, replicas_on_one(options, n_machines))
    try:
        while not ray.wait([result], timeout=_POLL_S)[0]:
            check()
        planned = ray.get(result)
    except ray.exceptions.RayError as error:
        raise _not_planned(error) from error
    if isinstance(planned, Failure):
        raise planned.error()
    assert isinstance(planned, Planned)
    memory = planned.memory_bytes if options.memory == "auto" else options.memory
    reserved = Share(share.cpus, share.gpus, memory)
    return reserved, settled(config.gguf, planned, share.cpus)


def _not_planned(error: Exception) -> LLMError:
    text = " ".join(str(error).split())
    if "ModuleNotFoundError" in text:
        return ProviderNotSupported(
            "a machine of the cluster has no mofa-gguf-ray; install it on every one, in the "
            "environment that Ray runs in",
            provider="gguf-ray",
        )
    return ApiError(f"the model could not be planned on the cluster ({text[-300:]})", code="500")


def _wait_until_ready(
    app: str, config: RayConfig, deadline_s: float, check: Callable[[], None]
) -> None:
    """Wait until the replicas run; with some of them missing at the end, go on with the others."""
    while True:
        check()
        found = serve.status().applications.get(app)
        status = found.status.value if found is not None else "NOT_STARTED"
        if status == "RUNNING":
            return
        deployment = found.deployments.get(_NAME) if found is not None else None
        n_running = deployment.replica_states.get("RUNNING", 0) if deployment else 0
        if status == "UNHEALTHY" and n_running:
            return
        if status in _FAILED:
            told = " ".join((deployment.message if deployment else found.message).split())
            raise ApiError(f"the replicas could not be started ({told[-400:]})", code="500")
        if time.monotonic() >= deadline_s and n_running:
            log.warning("%s goes on with %d replicas; the others have no room", app, n_running)
            return
        if time.monotonic() >= deadline_s:
            raise _late(config)
        time.sleep(_POLL_S)


def _late(config: RayConfig) -> Timeout:
    limit_s = config.cluster.start_timeout_s
    return Timeout(
        f"no replica was ready within {limit_s:g} s; is the cluster busy with other work, or the "
        "model large? (ray status, start_timeout_s)",
        timeout_s=limit_s,
    )


def _describe(handle: Any, deadline_s: float) -> Description:
    try:
        left_s = max(1.0, deadline_s - time.monotonic())
        description = handle.describe.remote().result(timeout_s=left_s)
    except TimeoutError as error:
        raise Timeout("the replicas did not answer in time") from error
    assert isinstance(description, Description)
    return description
