"""The contexts of a model that embed and judge: each made, if there is room, when first needed."""

from __future__ import annotations

from mofa_gguf.engine.machine.devices import gpus
from mofa_gguf.engine.machine.memory import host_memory
from mofa_gguf.engine.models.context import AbortFlag
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.embedding import EmbeddingPlan
from mofa_gguf.engine.planning.ledger import Reservation
from mofa_gguf.engine.planning.rooms import rooms
from mofa_gguf.engine.running.embedding import Embedder


class Embedders:
    """Owner of a model's :class:`Embedder` and ranker. Used by the engine's thread only.

    ``plan`` says what each takes besides the model; None where the model's plan has room for it.
    """

    def __init__(
        self, model: Model, options: EngineOptions, abort: AbortFlag, plan: EmbeddingPlan | None
    ) -> None:
        self._model = model
        self._options = options if plan is None else plan.options
        self._abort = abort
        self._plan = plan
        self._made: dict[bool, Embedder] = {}
        self._reservations: list[Reservation] = []

    def embedder(self) -> Embedder:
        """The one that embeds. Raises OutOfMemory where it does not fit now."""
        return self._get(ranks=False)

    def ranker(self) -> Embedder:
        """The one that judges pairs of texts. Raises OutOfMemory where it does not fit now."""
        return self._get(ranks=True)

    def close(self) -> None:
        """Free them; may be called twice."""
        for embedder in self._made.values():
            embedder.close()
        for reservation in self._reservations:
            reservation.release()

    def _get(self, *, ranks: bool) -> Embedder:
        if ranks not in self._made:
            entry = self._reserve()
            try:
                made = Embedder(self._model, self._options, self._abort, ranks=ranks)
            except BaseException:
                if entry is not None:
                    entry.release()
                raise
            self._made[ranks] = made
            if entry is not None and self._plan is not None:
                entry.settle(self._plan.unseen_bytes)
                self._reservations.append(entry)
        return self._made[ranks]

    def _reserve(self) -> Reservation | None:
        if self._plan is None:
            return None
        left = {share.device: share.available for share in self._plan.shares}
        self._plan.check({**left, **rooms(host_memory(), gpus())})
        return Reservation(self._plan.bytes_of)
