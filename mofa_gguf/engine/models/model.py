"""A model's weights in memory: loading, what was asked for and what was got."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mofa_gguf.engine.errors import (
    DeviceLost,
    ModelFileError,
    OutOfMemory,
    UnsupportedModel,
)
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.machine.devices import available_memory_bytes
from mofa_gguf.engine.models.keeping import Keeping
from mofa_gguf.engine.models.lora import LoadedAdapters, load_adapters
from mofa_gguf.engine.native import apart, llama, logged, take_errors
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.facts import only_embeds
from mofa_gguf.engine.planning.ledger import Reservation
from mofa_gguf.engine.planning.load_params import model_params
from mofa_gguf.engine.planning.load_plan import LoadPlan
from mofa_gguf.engine.tokens.vocab import Vocab

if TYPE_CHECKING:
    from mofa_gguf.engine.machine.rpc_absent import Absentees
    from mofa_gguf.engine.machine.rpc_guard import Guard

logger = logging.getLogger(__name__)

POOLING_NAMES = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
# Our own key beside llama.cpp's: every id that ends a generation, as the checkpoint lists them.
EOS_IDS_KEY = "tokenizer.ggml.eos_token_ids"


class Offload(NamedTuple):
    """Layers on the GPU: how many were asked for, how many are there, and on which devices."""

    requested: int | str
    n_layers: int
    n_total: int
    devices: tuple[str, ...]
    cpu_experts: tuple[int, ...] = ()
    """Layers on the GPU whose experts stay with the CPU."""


class Model:
    """Owner of a ``llama_model``. Contexts made from it must be closed first."""

    def __init__(self, header: GGUFHeader, load: LoadPlan, handle: Any, buffers: object) -> None:
        plan = load.plan
        names = load.placing.devices
        self.path = header.path
        self.header = header
        self.plan = plan
        self.offload = Offload(
            load.requested_layers, plan.n_gpu_layers, plan.n_total, names, plan.cpu_experts
        )
        wanted = load.options.rpc_servers if load.requested_layers != 0 else ()
        self._guards: tuple[Guard, ...] = ()
        self.absent_workers: Absentees | None = None
        """Workers that might have layers of it but did not answer when it was loaded."""
        if names or wanted:
            from mofa_gguf.engine.machine.rpc import absentees, guards_of

            self._guards, self.absent_workers = guards_of(names), absentees(wanted)
        self._buffers = buffers  # ctypes arrays that llama.cpp keeps pointers to
        self._handle = handle
        self._keeping = Keeping()
        library = llama()
        self.adapters = LoadedAdapters()
        self.reservation: Reservation | None = None
        """What was promised to this model; released with it."""
        self.vocab = Vocab(
            library.llama_model_get_vocab(handle),
            owner=self,
            metadata=header.metadata,
            path=header.path,
        )
        self.n_ctx_train: int = library.llama_model_n_ctx_train(handle)
        self.n_embd: int = library.llama_model_n_embd(handle)
        self.n_cls_out: int = library.llama_model_n_cls_out(handle)
        self.n_layers: int = library.llama_model_n_layer(handle)
        self.n_parameters: int = library.llama_model_n_params(handle)
        self.n_bytes: int = library.llama_model_size(handle)
        self.description = self._describe()
        self.ranks = self._has_judging_head()
        """Whether the model has a head that says how well two texts fit together.

        Its first output is that: the only one, or the "yes" of a model that answers yes or no.
        """

    @classmethod
    def load(
        cls,
        header: GGUFHeader,
        load: LoadPlan,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Model:
        """Load the file that ``header`` is of, as planned; blocks until its weights are there.

        ``progress`` is called, on another thread, with the loaded share, 0 to 1; what it raises
        ends the loading and comes out of here. Raises ModelFileError (or UnsupportedModel),
        DeviceLost, InvalidOption or OutOfMemory.
        """
        path = header.path
        stopped: list[BaseException] = []
        params, buffers = model_params(load.options, load.placing, use_mmap=load.options.use_mmap)
        params.progress_callback = _reporter(progress, stopped, hugepages=load.options.hugepages)
        buffers.append(params.progress_callback)

        def read() -> Any:
            take_errors()
            with logged() as lines:
                handle = llama().llama_model_load_from_file(os.fsencode(path), params)
            if stopped:
                if handle:
                    llama().llama_model_free(handle)
                raise stopped[0]
            if not handle:
                raise _load_error(path, header, take_errors())
            _tell_unlocked(path, load.options, lines)
            return handle

        handle = apart(read, stop=stopped.append, discard=llama().llama_model_free)
        logger.info("loaded %s (%s)", path.name, header.architecture)
        model = cls(header, load, handle, buffers)
        try:
            model.check_devices()
            model.adapters = load_adapters(handle, load.options.lora)
        except BaseException:
            model.close()
            raise
        return model

    @property
    def handle(self) -> Any:
        """``llama_model *``."""
        return self._handle

    @property
    def is_encoder(self) -> bool:
        """Whether the model only reads (BERT and its kin): it embeds, but cannot generate."""
        return self.header.hyperparameter("attention.causal", True) is False

    @property
    def only_embeds(self) -> bool:
        """Whether the model is made for vectors: it cannot generate, or nothing that makes sense.

        An encoder, or a decoder whose file says how its vectors are pooled.
        """
        return only_embeds(self.header)

    @property
    def pooling(self) -> str | None:
        """How the model's file says that token vectors are pooled; None where it says nothing."""
        value = self.header.hyperparameter("pooling_type")
        return POOLING_NAMES.get(value) if isinstance(value, int) else None

    @property
    def n_window(self) -> int:
        """Cells that layers with a sliding window attend to; 0 without such layers."""
        n_cells: int = llama().llama_model_n_swa(self.handle)
        return n_cells

    @property
    def outdated(self) -> bool:
        """Whether it should be loaded anew before anybody uses it again: workers with layers of it
        went away, or some that were missing when it was loaded are there."""
        if any(guard.look() for guard in self._guards):
            return True
        return self.absent_workers is not None and self.absent_workers.back

    @property
    def lost_devices(self) -> tuple[str, ...]:
        """Workers that held layers of this model and went away: it computes nonsense now."""
        return tuple(guard.server for guard in self._guards if guard.lost)

    def check_devices(self) -> None:
        """Raises DeviceLost if a worker with layers of this model went away."""
        if self._guards and (lost := self.lost_devices):
            raise DeviceLost(lost)

    def kept(self) -> AbstractContextManager[None]:
        """While the block runs :meth:`close` frees nothing. Raises EngineClosed behind it."""
        return self._keeping.within()

    def close(self) -> None:
        """Free the weights once nobody is within :meth:`kept`; may be called twice."""
        self._keeping.end(self._free)

    def _free(self) -> None:
        self.vocab.close()
        llama().llama_model_free(self._handle)
        self._handle = None
        if self.reservation is not None:
            self.reservation.release()

    def _has_judging_head(self) -> bool:
        if self.pooling != "rank":
            return False
        label: bytes | None = llama().llama_model_cls_label(self._handle, 0)
        return self.n_cls_out == 1 or label == b"yes"

    def _describe(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama().llama_model_desc(self._handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace")

    @cached_property
    def eog_ids(self) -> frozenset[int]:
        """Every token that ends an answer: those that the file lists and those llama.cpp knows.

        llama.cpp is asked of each, 0.1 s for 262,144; a model that is only probed needs none.
        """
        listed = self.header.metadata.get(EOS_IDS_KEY, [])
        own = {i for i in listed if isinstance(i, int) and 0 <= i < self.vocab.n_tokens}
        if self.is_encoder:  # nothing is generated
            return frozenset(own)
        known = (i for i in range(self.vocab.n_tokens) if self.vocab.is_eog(i))
        return frozenset(own.union(known))


def _reporter(
    progress: Callable[[float], None] | None,
    stopped: list[BaseException],
    *,
    hugepages: bool,
) -> Any:
    """A callback for llama.cpp that ends the loading once ``stopped`` has something in it.

    ``stopped`` gets what ``progress`` raises. It is first called when the weights' memory is made
    and nothing is in it: then huge pages are asked for.
    """
    pages: HugePages | None = None
    if hugepages:
        from mofa_gguf.engine.machine.hugepages import HugePages

        pages = HugePages()

    def report(share: float, _user_data: object) -> bool:
        try:
            if pages is not None and share == 0:
                pages.ask()
            if progress is not None and not stopped:
                progress(share)
        except BaseException as error:  # noqa: BLE001 - must not pass through C
            stopped.append(error)
        return not stopped

    return llama().llama_progress_callback(report)


def _tell_unlocked(path: Path, options: EngineOptions, lines: list[str]) -> None:
    """Say so if the weights could not be locked in memory; they are used all the same."""
    failed = next((line for line in lines if "failed to mlock" in line), None)
    if options.use_mlock and failed is not None:
        logger.warning(
            "%s could not be locked in memory (use_mlock) and may be swapped out; raise the limit "
            "on locked memory (ulimit -l): %s",
            path.name,
            failed,
        )


def _load_error(path: Path, header: GGUFHeader, reasons: list[str]) -> Exception:
    """The error for a load that llama.cpp refused, told from what it logged."""
    text = " ".join(reasons)
    lowered = text.lower()
    if "unknown model architecture" in lowered:
        return UnsupportedModel(
            path,
            f"this version of llama.cpp cannot run the architecture {header.architecture!r}",
            architecture=header.architecture,
        )
    if any(sign in lowered for sign in ("out of memory", "failed to allocate", "unable to alloc")):
        needed, free = header.n_tensor_bytes / 2**30, available_memory_bytes() / 2**30
        return OutOfMemory(
            f"{path.name} needs {needed:.1f} GiB for its weights and {free:.1f} GiB are free; "
            "use a smaller quantization or fewer n_gpu_layers"
        )
    return ModelFileError(path, f"llama.cpp could not load it ({text or 'it gave no reason'})")


def refuse_encoder_decoder(model: Model) -> None:
    """Raises UnsupportedModel for what needs an encoder's output to generate (T5 and its kin)."""
    library = llama()
    if library.llama_model_has_encoder(model.handle) and library.llama_model_has_decoder(
        model.handle
    ):
        raise UnsupportedModel(
            model.path,
            f"{model.header.architecture} is an encoder-decoder model, which cannot be run here",
            architecture=model.header.architecture,
        )


def can_share(model: Model) -> bool:
    """Whether the model's memory can drop and share parts of sequences.

    Recurrent and hybrid models keep a state, not a cell for each token.
    """
    library = llama()
    return not (
        library.llama_model_is_recurrent(model.handle)
        or library.llama_model_is_hybrid(model.handle)
    )
