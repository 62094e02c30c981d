"""A provider's hold on its deployment: begun once, whoever asks first, and ended once."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError

from mofa_gguf.contract import LLMError, Other, Timeout
from mofa_gguf_ray import cluster
from mofa_gguf_ray.calls import translated
from mofa_gguf_ray.deployment import Deployment, begin_or_join
from mofa_gguf_ray.settings import RayConfig
from mofa_gguf_ray.wire import Description, ReplicaReport

log = logging.getLogger(__name__)

_REPORT_S = 10.0


class Session:
    """The deployment of one provider. Safe to use from several threads and event loops.

    Attributes:
        open_responses: what Ray calls the requests in flight; closing cancels them.
    """

    def __init__(self, config: RayConfig) -> None:
        self.open_responses: set[Any] = set()
        self._config = config
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mofa-gguf-ray")
        self._begun: Future[Deployment] | None = None
        self._ended: Future[None] | None = None

    @property
    def description(self) -> Description | None:
        """What the replicas have said of themselves; None before there are any."""
        begun = self._begun
        if begun is None or not begun.done() or begun.exception() is not None:
            return None
        return begun.result().description

    async def deployment(self) -> Deployment:
        """The running deployment, begun if need be. A failed beginning is tried again."""
        with self._lock:
            self.check_open()
            failed = self._begun is not None and self._begun.done() and self._begun.exception()
            if self._begun is None or failed:
                self._begun = self._worker.submit(self._begin)
            begun = self._begun
        return await asyncio.shield(asyncio.wrap_future(begun))

    async def reports(self) -> tuple[ReplicaReport, ...]:
        """What each replica says; those that cannot answer are left out. None where there may be
        none.

        Raises:
            Timeout: one of them does not answer, and Ray has not noticed yet that it is gone.
        """
        handle = (await self.deployment()).handle
        try:
            told = await handle.broadcast("report").results_async(
                timeout_s=_REPORT_S, return_exceptions=True
            )
        except TimeoutError as error:
            raise Timeout("a replica does not answer", timeout_s=_REPORT_S) from error
        except Exception as error:
            none_is_allowed = self._config.cluster.replicas.min == 0
            if none_is_allowed and isinstance(error, DeploymentUnavailableError):
                return ()
            raise translated(error) from error
        return tuple(each for each in told if isinstance(each, ReplicaReport))

    async def close(self) -> None:
        """Cancel what is in flight, end what was begun, leave the cluster."""
        with self._lock:
            if self._ended is None:
                self._ended = self._worker.submit(self._end)
                self._worker.shutdown(wait=False)
            ended = self._ended
        for response in list(self.open_responses):
            response.cancel()
        await asyncio.shield(asyncio.wrap_future(ended))

    def check_open(self) -> None:
        """Raises Other after ``close``."""
        if self._ended is not None:
            raise Other("the provider is closed; make a new one")

    def _begin(self) -> Deployment:
        options = self._config.cluster
        cpus = options.cpus or self._config.gguf.n_threads or 1
        cluster.connect(options.ray_address, least_cpus=options.replicas.max * cpus)
        try:
            return begin_or_join(self._config, self.check_open)
        except BaseException as error:
            cluster.disconnect()
            if isinstance(error, LLMError) or not isinstance(error, Exception):
                raise
            raise translated(error) from error

    def _end(self) -> None:
        # The worker has one thread: whatever was begun is there by now, or has failed.
        if self._begun is None or self._begun.exception() is not None:
            return
        deployment = self._begun.result()
        try:
            deployment.leave(keep=self._config.cluster.keep)
        finally:
            cluster.disconnect()
