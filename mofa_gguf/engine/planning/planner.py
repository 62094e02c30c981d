"""Makes the plan for a file: facts and costs, llama.cpp's own sizes, budgets, and again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mofa_gguf.engine.files.header import TensorInfo
from mofa_gguf.engine.machine.devices import Device, default_threads
from mofa_gguf.engine.machine.kernels import values_at_once
from mofa_gguf.engine.machine.memory import HostMemory
from mofa_gguf.engine.options import AUTO, EngineOptions, FlashAttention
from mofa_gguf.engine.planning.attention import attention_for
from mofa_gguf.engine.planning.context_params import (
    ContextShape,
    embedding_shape,
    generation_shape,
)
from mofa_gguf.engine.planning.costs import (
    Compute,
    Costs,
    attention_bytes,
    estimated_costs,
    other_bytes,
)
from mofa_gguf.engine.planning.facts import ModelFacts
from mofa_gguf.engine.planning.load_params import model_params
from mofa_gguf.engine.planning.load_plan import LoadPlan
from mofa_gguf.engine.planning.placement import Budget
from mofa_gguf.engine.planning.plan import Plan, make_plan
from mofa_gguf.engine.planning.repack import repacked, repacked_bytes
from mofa_gguf.engine.planning.resident import mapped_bytes
from mofa_gguf.engine.planning.rooms import device_room, host_room
from mofa_gguf.engine.planning.search import Wishes
from mofa_gguf.engine.planning.sizing import parking_bytes

if TYPE_CHECKING:
    from mofa_gguf.engine.planning.adapters import AdapterFacts
    from mofa_gguf.engine.planning.dry_load import Buffers
    from mofa_gguf.engine.planning.embedding import EmbeddingPlan

_MIB = 2**20
_MAX_ROUNDS = 4
_STACK_BYTES = 8 * _MIB
ADDRESS_SPACE_SLACK = 128 * _MIB
"""Address space that allocators and threads reserve without using it."""
_DRY_LOAD_BYTES = 8 * _MIB
"""What a dry load takes itself, beside the vocabulary's tables."""
_CELL_BYTES = 52
"""What it takes for a cell of the cache, whose table llama.cpp makes all the same; measured."""
_MANY_CELLS = 2**20
_SMALL_CTX = 512


class Planner(NamedTuple):
    """Everything that one plan is made from."""

    path: Path
    facts: ModelFacts
    tensors: tuple[TensorInfo, ...]
    options: EngineOptions
    devices: tuple[Device, ...]
    memory: HostMemory
    device_share: float
    adapters: AdapterFacts | None

    def mappings(self) -> list[bool]:
        """Ways to load: mapped as asked for, and read where address space is short for a map."""
        if self.options.use_mmap and self.memory.address_space is not None:
            return [True, False]
        return [self.options.use_mmap]

    def plan(self, *, use_mmap: bool) -> LoadPlan:
        """The plan for one way to load."""
        facts, costs = self.facts, self._first_costs()
        host, limit = self._host(use_mmap)
        embedding: Buffers | None = None
        plan = self._planned(facts, costs, host)
        if self.options.dry_load:
            for _ in range(_MAX_ROUNDS):
                if not self._can_be_tried(facts, plan, host):
                    break
                told = self._measure(facts, costs, plan)
                if told is None:
                    break
                facts, costs, embedding = told
                again = self._planned(facts, costs, host)
                settled = _settings(again) == _settings(plan)
                plan = again
                if settled:
                    break
        options = replace(self._resolved(plan), use_mmap=use_mmap)
        return LoadPlan(
            plan,
            options,
            self._resident(plan, use_mmap),
            limit,
            costs.measured,
            embedding=self._embedding(facts, plan, embedding),
            prefix_bytes=self._prefixes(plan),
        )

    def _can_be_tried(self, facts: ModelFacts, plan: Plan, host: Budget) -> bool:
        """Whether a dry load has room, and can say more than that the cache alone is too large."""
        n_cells = 0 if facts.only_embeds else plan.n_ctx
        own = _DRY_LOAD_BYTES + facts.n_tokenizer_bytes + n_cells * _CELL_BYTES
        everywhere = host.n_bytes + sum(budget.n_bytes for budget in self._budgets())
        cache = facts.cache_bytes(plan.type_k, plan.type_v, n_ctx=n_cells, n_states=0)
        return own < host.n_bytes and (n_cells <= _MANY_CELLS or cache <= everywhere)

    def _first_costs(self) -> Costs:
        attention = self._attention(len(self.devices), AUTO, AUTO)
        options = replace(self.options, flash_attn=attention)
        shape = self._shape(self._some_context(), shares=True, options=options)
        costs = estimated_costs(
            self.facts,
            n_batch=shape.n_ubatch,
            n_outputs=shape.n_outputs or shape.n_batch,
            n_sequences=shape.n_sequences,
            flash_attention=attention != "off",
        )
        return costs._replace(
            n_tied_copy_bytes=self._tied_copy(), n_layout_bytes=self._layout_bytes()
        )

    def _resolved(self, plan: Plan) -> EngineOptions:
        """The options with what the plan decided for "auto"."""
        return replace(
            self.options,
            cache_type_k=plan.type_k,
            cache_type_v=plan.type_v,
            flash_attn=self._attention(plan.n_gpu_layers, plan.type_k, plan.type_v),
        )

    def _attention(self, n_gpu_layers: int, type_k: str, type_v: str) -> FlashAttention:
        asked = self.options.flash_attn
        if self.facts.only_embeds or asked != AUTO:
            return asked
        return attention_for(
            asked,
            type_k=type_k,
            type_v=type_v,
            on_cpu=n_gpu_layers == 0,
            head_lengths=self.facts.head_lengths,
            values_at_once=values_at_once(),
        )

    def _some_context(self) -> int:
        n_ctx = self.options.n_ctx
        return self.facts.n_ctx_train if n_ctx == AUTO else n_ctx

    def _shape(
        self, n_ctx: int, *, shares: bool, options: EngineOptions | None = None
    ) -> ContextShape:
        if self.facts.only_embeds:
            return embedding_shape(self.options)
        return generation_shape(options or self.options, n_ctx=n_ctx, shares=shares)

    def _planned(self, facts: ModelFacts, costs: Costs, host: Budget) -> Plan:
        options = self.options
        n_layers = options.n_gpu_layers
        encoder = facts.only_embeds
        wishes = Wishes(
            n_ctx=options.n_embedding_batch if encoder else options.n_ctx,
            type_k=options.cache_type_k,
            type_v=options.cache_type_v,
            n_gpu_layers="all" if isinstance(n_layers, int) and n_layers < 0 else n_layers,
            tensor_split=options.tensor_split,
            n_states=self._shape(1, shares=False).n_sequences,
        )
        return make_plan(facts, costs, host=host, devices=self._budgets(), wishes=wishes)

    def _budgets(self) -> list[Budget]:
        budgets = []
        for device in self.devices:
            n_bytes = int(device_room(device) * self.device_share)
            budgets.append(Budget(device.name, n_bytes, remote=device.kind == "rpc"))
        return budgets

    def _host(self, use_mmap: bool) -> tuple[Budget, str]:
        n_bytes, limit = host_room(self.memory), self.memory.physical.limit
        space = self.memory.address_space
        if space is not None:
            n_threads = self.options.n_threads or default_threads()
            least = space.n_bytes - ADDRESS_SPACE_SLACK - n_threads * _STACK_BYTES
            if use_mmap:  # the file is mapped whole, what is held elsewhere included
                least -= sum(tensor.n_bytes for tensor in self._repacked())
            if least < n_bytes:
                n_bytes, limit = least, space.limit
        return Budget("CPU", max(0, n_bytes)), limit

    def _repacked(self) -> list[TensorInfo]:
        return repacked(self.tensors) if self.options.repack else []

    def _tied_copy(self) -> int:
        if not self.facts.n_tied_bytes:
            return 0
        embeddings = next(t for t in self.tensors if t.name == "token_embd.weight")
        return repacked_bytes(embeddings) if self.options.repack else 0

    def _layout_bytes(self) -> int:
        """Those of all weights, though some may come to lie on a device, which needs none."""
        return sum(repacked_bytes(tensor) - tensor.n_bytes for tensor in self._repacked())

    def _measure(
        self, facts: ModelFacts, costs: Costs, plan: Plan
    ) -> tuple[ModelFacts, Costs, Buffers | None] | None:
        """Facts and costs with llama.cpp's own sizes at the plan's context, or None.

        The third is what a context that embeds takes besides.
        """
        from mofa_gguf.engine.planning.dry_load import DryModel

        options = self._resolved(plan)
        placing = LoadPlan(plan, options, 0, "", False).placing
        params, _keep = model_params(options, placing, use_mmap=False)
        with DryModel(os.fsencode(self.path), params) as model:
            if not model.loaded:
                return None
            shape = self._shape(plan.n_ctx, shares=model.shares, options=options)
            buffers = model.measure(options, shape)
            small = self._shape(_SMALL_CTX, shares=model.shares, options=options)
            least = model.measure(options, small) if plan.n_ctx > _SMALL_CTX else buffers
            embedding = None
            if not facts.only_embeds:
                embedding = model.measure(self._embedding_options(plan), embedding_shape(options))
        if buffers is None or least is None:
            return None
        # The first measurement replaces the estimate; a small context is measured along with it,
        # so that those between can be told.
        points = costs.compute if costs.measured else Compute(())
        points = points.with_point(
            min(plan.n_ctx, _SMALL_CTX), least.largest_compute + self._scratch(options, small)
        )
        new = costs._replace(
            compute=points.with_point(
                plan.n_ctx, buffers.largest_compute + self._scratch(options, shape)
            ),
            n_output_bytes=buffers.output,
            n_other_bytes=other_bytes(facts, n_batch=shape.n_ubatch),
            measured=True,
        )
        return _corrected(facts, plan, buffers, shape), new, embedding

    def _embedding(
        self, facts: ModelFacts, plan: Plan, measured: Buffers | None
    ) -> EmbeddingPlan | None:
        """What embedding takes besides; None where that is all that is planned."""
        if facts.only_embeds:
            return None
        from mofa_gguf.engine.planning.embedding import embedding_plan

        options = self._embedding_options(plan)
        return embedding_plan(facts, plan, embedding_shape(options), options, measured)

    def _embedding_options(self, plan: Plan) -> EngineOptions:
        """Texts come whole, and flash attention is the faster one for many tokens at once."""
        return replace(self._resolved(plan), flash_attn=self.options.flash_attn)

    def _prefixes(self, plan: Plan) -> int:
        """Most of the host's memory that parked prefixes may come to take."""
        facts, asked = self.facts, self.options.prefix_memory
        if facts.only_embeds or any(layer.n_state_bytes for layer in facts.layers):
            return 0
        left = plan.host.available - plan.host.n_bytes
        return parking_bytes(left) if asked == AUTO else asked

    def _scratch(self, options: EngineOptions, shape: ContextShape) -> int:
        adapters = self.adapters.compute_bytes(shape.n_ubatch) if self.adapters else 0
        if options.flash_attn != "off":
            return adapters
        cells = attention_bytes(self.facts, n_cells=shape.n_ctx, n_batch=shape.n_ubatch)
        return adapters + cells

    def _resident(self, plan: Plan, use_mmap: bool) -> int:
        if not use_mmap:
            return plan.host.n_bytes
        held = {tensor.name for tensor in self._repacked()}
        return mapped_bytes(plan, self.tensors, n_layers=len(self.facts.layers), held=held)


def _settings(plan: Plan) -> tuple[int, str, int]:
    """What the sizes of llama.cpp's buffers depend on."""
    return plan.n_ctx, plan.type_k, plan.n_gpu_layers


def _corrected(facts: ModelFacts, plan: Plan, buffers: Buffers, shape: ContextShape) -> ModelFacts:
    """The facts with caches scaled to what llama.cpp says they take."""
    kv = facts.cache_bytes(plan.type_k, plan.type_v, n_ctx=shape.n_ctx, n_states=0)
    states = facts.cache_bytes(plan.type_k, plan.type_v, n_ctx=0, n_states=shape.n_sequences)
    return facts.corrected(
        kv_ratio=buffers.cache / kv if kv else 1.0,
        state_ratio=buffers.states / states if states else 1.0,
    )
