"""A ``llama_context``: the KV cache and the computation of batches."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.errors import DecodeFailed, EngineError, OutOfMemory
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.native import apart, llama, take_errors
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.context_params import ContextShape, context_params

NO_ROOM = 1
RANK = 4  # llama.h, LLAMA_POOLING_TYPE_RANK


class AbortFlag:
    """Set from any thread, it ends a running decode at the next graph node.

    ggml asks its abort callback before every node. A Python callback would take the GIL a
    thousand times a token, so the callback is C's ``strlen`` on a buffer of ours: 0 while the
    buffer is empty, 1 once it holds a letter.
    """

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p)
        self.callback = llama().ggml_abort_callback(strlen.value)
        self.data = ctypes.cast(self._buffer, ctypes.c_void_p)

    @property
    def is_set(self) -> bool:
        """Whether :meth:`set` was called."""
        return self._buffer[0] != b"\0"

    def set(self) -> None:
        """Abort what is running, and whatever runs later."""
        self._buffer[0] = b"x"


class Context:
    """Owner of a ``llama_context`` and its batch. Used by one thread at a time.

    ``shape``: tokens its cache holds, and most that a :meth:`run` takes; ``on_node``: a C function
    that sees the graph's nodes. Raises OutOfMemory when cache or buffers cannot be allocated.
    """

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        shape: ContextShape,
        *,
        abort: AbortFlag | None = None,
        on_node: Any = None,
        window: int = 0,
    ) -> None:
        """``window``: cells that layers with a sliding window attend to, where prefixes are shared.

        llama.cpp writes over cells that have left the window of the one sequence they belong to,
        even where the cache has room for all. Those of a shorter prefix would be missing, so every
        cell belongs to two: of the shape's sequences the first half may be used, and the second
        holds on.
        """
        library = llama()
        params = context_params(options, shape)
        self._ranks = shape.pooling == RANK
        self._abort = abort
        if abort is not None:
            params.abort_callback = abort.callback
            params.abort_callback_data = abort.data
        if on_node is not None:
            params.cb_eval = on_node
        self._on_node = on_node  # C keeps a pointer to it
        self._model = model
        self._batch: Any = None

        def make() -> tuple[Any, list[str]]:
            take_errors()
            return library.llama_init_from_model(model.handle, params), take_errors()

        # Ctrl-C would be lost in llama.cpp's log, which is Python.
        self._handle, errors = apart(make, discard=_free)
        if not self._handle:
            reason = "; ".join(errors) or "llama.cpp gave no reason"
            raise OutOfMemory(
                f"a context of {shape.n_ctx} tokens could not be made ({reason}); "
                "use a smaller n_ctx or a smaller KV cache type"
            )
        model.adapters.apply(self._handle)
        self.n_ctx: int = library.llama_n_ctx(self._handle)
        self.n_batch = shape.n_batch
        self._n_outputs = min(shape.n_outputs, shape.n_batch) or shape.n_batch
        self._window = window
        self._holders = (0, shape.n_sequences // 2) if window else (0,)
        self._batch = library.llama_batch_init(shape.n_batch, 0, len(self._holders))
        self._tokens, self._positions = self._batch.token, self._batch.pos
        self._memory = library.llama_get_memory(self._handle)
        # Another one than llama-cpp-python's, which makes an object of the pointer each time.
        self._logits_address = library._lib["llama_get_logits_ith"]
        self._logits_address.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        self._logits_address.restype = ctypes.c_void_p
        self._logits_type = ctypes.c_float * model.vocab.n_tokens
        self._logits_at: dict[int, npt.NDArray[np.float32]] = {}
        """Views of them by address: making one takes longer than choosing from it."""
        self._llama = library

    @property
    def handle(self) -> Any:
        """``llama_context *``."""
        return self._handle

    def fill(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[bool],
    ) -> None:
        """Put tokens into the batch, each with position, sequence and whether it has an output.

        Raises DecodeFailed for more outputs than the context was made for, which llama.cpp answers
        by ending the process.
        """
        n_outputs = sum(outputs)
        if n_outputs > self._n_outputs:
            raise DecodeFailed(
                f"a batch with {n_outputs} outputs cannot be computed: the context was made for "
                f"{self._n_outputs}"
            )
        take_errors()  # what is said from now on is said of this batch
        batch = self._batch
        assert 0 < len(tokens) <= self.n_batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self._tokens[i] = token
            self._positions[i] = positions[i]
            batch.n_seq_id[i] = len(self._holders)
            for j, shift in enumerate(self._holders):
                batch.seq_id[i][j] = sequences[i] + shift
            batch.logits[i] = outputs[i]

    def put(self, token: int, position: int) -> None:
        """In a batch that was filled with one token, put another one in its place."""
        self._tokens[0] = token
        self._positions[0] = position

    def run(self) -> None:
        """Compute the filled batch."""
        status: int = self._llama.llama_decode(self._handle, self._batch)
        self._model.check_devices()
        if status == 0:
            return
        reason = "; ".join(take_errors())
        if status == NO_ROOM:
            reason = reason or "the KV cache has no room for the batch"
        raise DecodeFailed(
            f"llama.cpp could not compute a batch of {self._batch.n_tokens} tokens "
            f"(status {status}{': ' + reason if reason else ''})",
            status=status,
        )

    def logits(self, index: int) -> npt.NDArray[np.float32]:
        """Logits of the batch's token ``index`` (-1: the last): a view, valid until the next run.

        Shape ``(n_vocab,)``. Raises EngineError for a token that was computed without.
        """
        address: int | None = self._logits_address(self._handle, index)
        if address is None:
            raise EngineError(f"the batch's token {index} was computed without logits")
        view = self._logits_at.get(address)
        if view is None:
            if len(self._logits_at) >= self._n_outputs:  # llama.cpp has moved them since
                self._logits_at.clear()
            row = memoryview(self._logits_type.from_address(address))
            view = self._logits_at[address] = np.frombuffer(row, np.float32)
        return view

    def pooled(self, sequence: int) -> npt.NDArray[np.float32]:
        """A copy of the pooled vector of ``sequence``, shape ``(n_embd,)``.

        With pooling by a classification head it is the head's outputs, shape ``(n_cls_out,)``.
        """
        pointer = self._llama.llama_get_embeddings_seq(self._handle, sequence)
        if not pointer:
            raise DecodeFailed("llama.cpp gave no embedding for a sequence")
        n_values = self._model.n_cls_out if self._ranks else self._model.n_embd
        return np.array(pointer[:n_values], dtype=np.float32)

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let ``target`` share the cells of ``source`` at positions ``start`` to ``end``."""
        for shift in self._holders:
            self._llama.llama_memory_seq_cp(
                self._memory, source + shift, target + shift, start, end
            )

    def has_all(self, sequence: int, n_tokens: int) -> bool:
        """Whether a sequence of ``n_tokens`` has every cell that the next token attends to.

        One restored from :meth:`state_of` has those of its own window, which are too few for a part
        of it.
        """
        if not self._window:
            return True
        first: int = self._llama.llama_memory_seq_pos_min(self._memory, sequence)
        return 0 <= first <= max(0, n_tokens - self._window)

    def remove(self, sequence: int, start: int, end: int) -> None:
        """Take a sequence off its cells from ``start`` to ``end`` (-1: to its end).

        Raises DecodeFailed if this memory cannot drop a part of a sequence.
        """
        for shift in self._holders:
            if not self._llama.llama_memory_seq_rm(self._memory, sequence + shift, start, end):
                raise DecodeFailed(f"the KV cache cannot drop positions {start} to {end}")

    def state_size(self, sequence: int) -> int:
        """Bytes of a sequence's state."""
        n_bytes: int = self._llama.llama_state_seq_get_size(self._handle, sequence)
        return n_bytes

    def state_of(self, sequence: int, into: memoryview | None = None) -> memoryview:
        """A sequence's cells as bytes, in new memory or at the beginning of ``into``.

        Raises DecodeFailed.
        """
        size = self.state_size(sequence)
        # Not zeroed first: a long conversation's state has hundreds of megabytes.
        state = np.empty(size, np.uint8).data if into is None else into[:size]
        if len(state) < size:
            raise DecodeFailed(f"a state of {size} bytes does not go into {len(state)}")
        n_bytes = self._llama.llama_state_seq_get_data(
            self._handle, (ctypes.c_uint8 * size).from_buffer(state), size, sequence
        )
        if n_bytes != size:
            raise DecodeFailed(f"llama.cpp gave {n_bytes} bytes of a state of {size}")
        return state

    def restore(self, sequence: int, state: bytes | memoryview) -> None:
        """Fill an empty sequence with cells that :meth:`state_of` gave. Raises DecodeFailed."""
        take_errors()
        array = np.frombuffer(state, np.uint8)  # refers to the state, copies nothing
        pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        if not self._llama.llama_state_seq_set_data(self._handle, pointer, len(array), sequence):
            reason = "; ".join(take_errors()) or "it gave no reason"
            raise DecodeFailed(f"llama.cpp could not take the saved state ({reason})")
        for shift in self._holders[1:]:
            self._llama.llama_memory_seq_cp(self._memory, sequence, sequence + shift, 0, -1)

    def clear(self) -> None:
        """Empty the KV cache."""
        if self._memory:
            self._llama.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free context and batch; may be called twice."""
        if self._batch is not None:
            self._llama.llama_batch_free(self._batch)
            self._batch = None
        if self._handle:
            self._llama.llama_free(self._handle)
            self._handle = None


def _free(made: tuple[Any, list[str]]) -> None:
    if made[0]:
        llama().llama_free(made[0])
