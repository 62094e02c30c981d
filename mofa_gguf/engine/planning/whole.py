"""Plans for a model together with its draft model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mofa_gguf.engine.files.header import GGUFHeader, read_header
from mofa_gguf.engine.machine.devices import Device
from mofa_gguf.engine.machine.memory import HostMemory, Room, host_memory
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.fit import plan_load
from mofa_gguf.engine.planning.ledger import promised
from mofa_gguf.engine.planning.load_plan import LoadPlan
from mofa_gguf.engine.planning.placement import whole_cells

_MAX_ROUNDS = 7
_THREADS_BYTES = 220 * 2**20
"""Address space that a provider has reserved by the time it loads: measured, three threads, each
with its stack and its part of the C library's heap."""


@dataclass(frozen=True)
class WholePlan:
    """A model, and the one that guesses for it, if there is one."""

    target: LoadPlan
    draft: LoadPlan | None = None

    @property
    def loads(self) -> tuple[LoadPlan, ...]:
        """Both, or the one there is."""
        return (self.target,) if self.draft is None else (self.target, self.draft)

    @property
    def fits(self) -> bool:
        """Whether all of it can be loaded."""
        return all(load.plan.fits for load in self.loads)

    @property
    def n_bytes(self) -> int:
        """What it takes on all devices together."""
        return sum(load.plan.n_bytes for load in self.loads)

    @property
    def all_bytes(self) -> dict[str, int]:
        """What it takes of the host and of each device."""
        return dict(sum((Counter(load.all_bytes) for load in self.loads), Counter()))

    def check(self) -> None:
        """Raises OutOfMemory if it does not fit."""
        for load in self.loads:
            load.check()


def plan_whole(
    header: GGUFHeader,
    options: EngineOptions,
    *,
    devices: Sequence[Device] | None = None,
    memory: HostMemory | None = None,
) -> WholePlan:
    """The plan for a model with ``options.draft_model`` beside it.

    What of the model is left open ("auto") gives way to the draft model. Arguments and errors are
    those of :func:`~mofa_gguf.engine.planning.fit.plan_load`.
    """
    alone = plan_load(header, options, devices=devices, memory=memory)
    if options.draft_model is None:
        return WholePlan(alone)
    draft_header = read_header(options.draft_model)

    def beside(target: LoadPlan) -> WholePlan:
        own = draft_options(options, n_ctx=whole_cells(target.plan.n_ctx))
        with promised(target.all_bytes):
            draft = plan_load(draft_header, own, devices=devices, memory=memory)
        return WholePlan(target, draft)

    first = beside(alone)
    if first.fits or first.draft is None:
        return first
    # The more is set aside for the draft model, the less context the target takes, and the less the
    # draft model then needs: what it needs lies in between.
    best, most, low, high = first, first.draft.all_bytes, 0.0, 1.0
    for _ in range(_MAX_ROUNDS):
        share = (low + high) / 2
        with promised({name: int(n_bytes * share) for name, n_bytes in most.items()}):
            target = plan_load(header, options, devices=devices, memory=memory)
        whole = beside(target) if target.plan.fits else None
        if whole is not None and whole.fits:
            best = whole
        if whole is None or whole.fits:
            high = share
        else:
            low = share
    return best


def plan_ahead(header: GGUFHeader, options: EngineOptions) -> WholePlan:
    """:func:`plan_whole`, as a provider in a process like this one will make it.

    Where address space is limited, what the provider's threads will reserve of it is left out.
    """
    memory = host_memory()
    space = memory.address_space
    if space is not None:
        left = Room(max(0, space.n_bytes - _THREADS_BYTES), space.limit)
        memory = memory._replace(address_space=left)
    return plan_whole(header, options, memory=None if space is None else memory)


def draft_options(options: EngineOptions, *, n_ctx: int) -> EngineOptions:
    """How the draft model of an engine with these options is loaded.

    As large a cache as the target's, and nothing that is the target's own; never on other machines,
    since a small model's decode is over before the answer would be here.
    """
    return replace(
        options,
        n_ctx=n_ctx,
        require_gpu=False,
        tensor_split=(),
        rpc_servers=(),
        lora=(),
        prefix_memory=0,
        speculation="off",
        draft_model=None,
    )
