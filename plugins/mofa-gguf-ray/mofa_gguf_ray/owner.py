"""Whose replicas they are: a program that ends without closing its provider leaves none behind."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import ray
from ray import serve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """The program (Ray's job) that began a deployment."""

    job_id: str

    @classmethod
    def this_program(cls) -> Owner:
        """The one that runs here."""
        return cls(ray.get_runtime_context().get_job_id())

    def is_gone(self) -> bool:
        """Whether the program has ended, in whatever way."""
        from ray._private.state import jobs

        return any(job["JobID"] == self.job_id and job["IsDead"] for job in jobs())

    def end_if_gone(self, app: str) -> None:
        """End the deployment when its program has ended."""
        if self.is_gone():
            log.warning("the program that began %s has ended, and so does this", app)
            serve.delete(app, _blocking=False)
