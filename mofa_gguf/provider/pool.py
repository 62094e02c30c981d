"""The models of one provider: loaded when asked for, unloaded to make room or when their time ends.

:mod:`mofa_gguf.provider.residency` decides; here are the threads and the models. Every
model is found, loaded and unloaded on a thread of its own, so that none waits for another, and
those threads are daemons: a process may end while a model loads.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from mofa_gguf.engine.errors import EngineClosed, EngineError, OutOfMemory
from mofa_gguf.engine.events import emit
from mofa_gguf.provider.actions import Action, Admit, Find, Load, Refuse, Ticket, Unload
from mofa_gguf.provider.background import Background
from mofa_gguf.provider.clock import Clock
from mofa_gguf.provider.errors import load_error, no_room_error
from mofa_gguf.provider.footprint import auto_budget
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.provider.loader import FileLoader, Found, Loader
from mofa_gguf.provider.outbox import Outbox
from mofa_gguf.provider.residency import Residency, Stage
from mofa_gguf.provider.uses import Use, Uses
from mofa_gguf.settings import GGUFConfig

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0
"""How long :meth:`ModelPool.close` waits for what cannot be stopped at once."""

_AWAY = frozenset({Stage.ABSENT, Stage.FINDING, Stage.QUEUED})
"""Stages of a model that takes no memory."""

_open_pools: weakref.WeakSet[ModelPool] = weakref.WeakSet()


class ModelPool:
    """Holds the models. Every method may be called from any thread; close it when done.

    Args:
        configs: each model's options by its name.
        budget_bytes: what they may take together; None takes most of what is free at the first
            load, and then lets in a model that is larger than that if it is alone.
        wait_s: how long a user waits for memory that models in use take.
        loader: how they are found and loaded.
    """

    def __init__(
        self,
        configs: Mapping[str, GGUFConfig],
        *,
        budget_bytes: int | None,
        wait_s: float,
        loader: Loader | None = None,
    ) -> None:
        self._configs = dict(configs)
        self._loader = loader or FileLoader()
        self._residency = Residency(
            {name: config.keep_alive for name, config in configs.items()},
            budget_bytes=budget_bytes,
            strict=budget_bytes is not None,
            wait_s=wait_s,
        )
        self._changed = threading.Condition(threading.RLock())
        self._uses = Uses()
        self._found: dict[str, Found] = {}
        self._models: dict[str, LoadedModel] = {}
        self._failures: dict[str, Exception] = {}
        self._background = Background()
        self._outbox = Outbox()
        self._clock = Clock(
            self._changed,
            self._background,
            next_event_s=self._residency.next_event_s,
            passed=self._passed,
            afterwards=self._outbox.send,
        )
        self._going: dict[str, list[Future[None]]] = {}
        self._closed = False
        self._pid = os.getpid()
        _open_pools.add(self)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def budget_bytes(self) -> int | None:
        """What the models may take together; None until an automatic one is known."""
        return self._residency.budget_bytes

    @property
    def used_bytes(self) -> int:
        """What those in memory are estimated to take."""
        if self._forked:
            return 0
        with self._changed:
            return self._residency.used_bytes

    def get(self, model: str) -> LoadedModel | None:
        """The model, if it is loaded, in this process."""
        return None if self._forked else self._models.get(model)

    def states(self) -> dict[str, tuple[Stage, int, int]]:
        """Each model's stage, users and estimated bytes."""
        if self._forked:
            return dict.fromkeys(self._configs, (Stage.ABSENT, 0, 0))
        with self._changed:
            self._take_back()
            books = self._residency
            states = {
                n: (books.stage(n), books.n_users(n), books.n_bytes(n)) for n in self._configs
            }
        self._outbox.send()
        return states

    def ask(self, model: str) -> Use:
        """Begin to use a model, which loads it if need be; release it in any case.

        Its future raises NotEnoughMemory, EngineClosed, or whatever finding or loading raises.
        """
        use = Use(model, release=self._release, dropped=self._uses.drop)
        if self._forked:
            use.future.set_exception(_forked_error())
            return use
        with self._changed:
            if self._closed:
                use.future.set_exception(_closed_error())
                return use
            self._take_back()
            self._uses.begin(use)
            loaded = self._models.get(model)
            if loaded is not None and loaded.engine.outdated:
                self._do(self._residency.send_away(model, time.monotonic()))
            self._do(self._residency.ask(use.ticket, time.monotonic()))
        self._outbox.send()
        return use

    def unload(self, model: str) -> Future[None]:
        """Unload a model when those who use it now are done; the future tells when it is gone."""
        gone: Future[None] = Future()
        if self._forked:
            gone.set_exception(_forked_error())
            return gone
        with self._changed:
            if self._closed:
                gone.set_result(None)
                return gone
            self._take_back()
            self._going.setdefault(model, []).append(gone)
            self._do(self._residency.send_away(model, time.monotonic()))
        self._outbox.send()
        return gone

    def close(self, *, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Free every model and end whatever goes on; may be called twice.

        What can only be stopped later (a conversion in the middle of a tensor) ends by itself;
        this returns after ``timeout_s`` at the latest.
        """
        if self._forked:
            return
        with self._changed:
            if not self._closed:
                self._closed = True
                for future in self._uses.waiting():
                    self._outbox.fail(future, _closed_error())
                for model in list(self._going):
                    self._tell_gone(model)
                for name in list(self._models):
                    self._start("unload", self._unload, name)
            self._clock.stop()
        self._outbox.send()
        late = self._background.join(timeout_s)
        if late:
            logger.warning("closed while this still went on: %s", ", ".join(late))

    def _release(self, ticket: Ticket, keep_alive_s: float | None) -> None:
        """End a use; see :meth:`Use.release`."""
        if self._forked:
            return
        with self._changed:
            if self._uses.end(ticket) is None:
                return
            self._take_back()
            now = time.monotonic()
            self._do(self._residency.leave(ticket, now, keep_alive_s=keep_alive_s))
        self._outbox.send()

    @property
    def _forked(self) -> bool:
        """In a fork nothing is loaded, and nobody may be there to give back a lock."""
        return os.getpid() != self._pid

    def _check(self) -> None:
        if self._closed:
            raise _closed_error()

    def _do(self, actions: Sequence[Action]) -> None:
        """Start what was decided; send the outbox once the lock is given back."""
        if self._closed:
            return
        for action in actions:
            if isinstance(action, Find):
                self._start("find", self._find, action.model)
            elif isinstance(action, Load):
                self._start("load", self._load, action.model)
            elif isinstance(action, Unload):
                self._start("unload", self._unload, action.model)
            elif isinstance(action, Admit):
                model = self._models[action.ticket.model]
                self._outbox.give(self._uses.future(action.ticket), model)
            else:
                self._refuse(action)
        # After each event: by the next one it may be on its way back already.
        for name in [n for n in self._going if self._residency.stage(n) in _AWAY]:
            self._tell_gone(name)
        self._clock.wind()
        self._changed.notify_all()

    def _start(self, kind: str, work: Callable[[str], None], model: str) -> None:
        """Do it on a thread; where the system has none, on the caller's, or let the load fail."""
        try:
            self._background.start(partial(work, model), f"{kind}-{model}")
        except RuntimeError as error:
            if work == self._unload:
                self._outbox.call(partial(work, model))
            else:
                self._outbox.call(partial(self._fail, model, error))

    def _refuse(self, action: Refuse) -> None:
        future = self._uses.end(action.ticket)
        assert future is not None
        if action.no_room is not None:
            error: Exception = no_room_error(action.no_room)
        else:
            error = self._failures[action.ticket.model]
        self._outbox.fail(future, error)

    def _tell_gone(self, model: str) -> None:
        for gone in self._going.pop(model):
            self._outbox.give(gone, None)

    def _find(self, model: str) -> None:
        config = self._configs[model]
        try:
            resolved = self._loader.find(config, self._check)
            if self._residency.budget_bytes is None:
                budget = auto_budget()
                with self._changed:
                    if self._residency.budget_bytes is None:
                        self._residency.budget_bytes = budget
            assert self._residency.budget_bytes is not None
            measured = self._loader.measure(
                config,
                resolved,
                budget_bytes=self._residency.budget_bytes,
                n_models=len(self._configs),
            )
        except BaseException as error:  # noqa: BLE001 - goes to those who wait for the model
            self._fail(model, error)
            return
        with self._changed:
            self._found[model] = Found(resolved, measured)
            self._do(self._residency.found(model, measured.n_bytes, time.monotonic()))
        self._outbox.send()

    def _load(self, model: str) -> None:
        started = time.monotonic()
        found = self._found[model]
        try:
            self._check()
            loaded = self._loader.load(self._configs[model], found, self._check)
        except BaseException as error:  # noqa: BLE001 - goes to those who wait for the model
            if not (isinstance(error, OutOfMemory) and self._try_again(model)):
                self._fail(model, error)
            return
        with self._changed:
            closed = self._closed
            if not closed:
                self._models[model] = loaded
                self._do(self._residency.loaded(model, time.monotonic()))
        self._outbox.send()
        if closed:
            loaded.close()
            return
        emit(
            logger,
            "model.loaded",
            model=model,
            path=str(found.resolved.path),
            n_bytes=found.footprint.n_bytes,
            seconds=time.monotonic() - started,
        )

    def _try_again(self, model: str) -> bool:
        """Once more without the models that nobody uses, where there are such."""
        with self._changed:
            actions = None if self._closed else self._residency.retry(model, time.monotonic())
            self._do(actions or [])
        self._outbox.send()
        return actions is not None

    def _fail(self, model: str, error: BaseException) -> None:
        told = load_error(model, error)
        if not self._closed:
            kind = type(error).__name__
            emit(logger, "model.load_failed", model=model, error=kind, reason=str(error))
        with self._changed:
            if not self._closed:
                self._failures[model] = told
                self._do(self._residency.failed(model, time.monotonic()))
                del self._failures[model]  # with all that its traceback holds
        self._outbox.send()

    def _unload(self, model: str) -> None:
        with self._changed:
            loaded = self._models.pop(model, None)
        try:
            if loaded is not None:
                loaded.close()
                emit(logger, "model.unloaded", model=model, n_bytes=self._residency.n_bytes(model))
        except BaseException:  # the others wait for its room
            logger.exception("%s could not be closed; its memory may not be free", model)
        with self._changed:
            if not self._closed:
                self._do(self._residency.unloaded(model, time.monotonic()))
            self._changed.notify_all()
        self._outbox.send()

    def _take_back(self) -> None:
        """Let go for those who were dropped and cannot any more."""
        for ticket in self._uses.left_behind():
            self._do(self._residency.leave(ticket, time.monotonic()))

    def _passed(self, now_s: float) -> None:
        self._take_back()
        self._do(self._residency.passed(now_s))


def _closed_error() -> EngineError:
    return EngineClosed("the provider is closed")


def _forked_error() -> EngineError:
    return EngineClosed("the provider belongs to the process that made it, not to a fork")


@atexit.register
def _close_all() -> None:
    for pool in list(_open_pools):
        pool.close(timeout_s=2.0)
