"""A small model guesses the next tokens of running sequences: its cells, and what it says.

The draft model has a KV cache of its own under the same kind of books as the target's: prefixes
are shared, and every sequence has a lease. A lease is brought in step with the target's tokens
whenever its sequence is drafted for: cells of guesses that were wrong are removed, missing tokens
are computed: a few at once, more than a few chunk by chunk. Knows nothing of llama.cpp.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence

from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.drafting.drafts import NOTHING, Decoder, Draft, Drafted, Feed, Likely, Wish
from mofa_gguf.engine.errors import DecodeFailed
from mofa_gguf.engine.scheduling.scheduler import Task
from mofa_gguf.engine.speculation.draft_policy import (
    MAX_DEPTH,
    NEAR,
    Depth,
    DraftAcceptance,
    Seconds,
    TrialAccount,
    best_depth,
    chunk_size,
    going_on,
    trial_depth,
    worth_catching_up,
)
from mofa_gguf.engine.speculation.policy import StepCost

logger = logging.getLogger(__name__)

_SPEED_MEMORY = 0.7
_MIN_MEASURED = 32


class Drafter:
    """Owner of the draft model's cells. Used by the engine's thread only.

    ``n_ctx``: tokens of the longest text that it drafts for; ``end_ids`` end a draft. Where the
    draft model fails it is closed, with one warning, and nothing is drafted any more.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: PrefixCache,
        *,
        n_ctx: int,
        end_ids: Collection[int],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cache = cache
        self.cost = StepCost()
        self.acceptance = DraftAcceptance()
        self.account = TrialAccount()
        self.n_steps = 0
        """Decodes of the draft model."""
        self.failed = False
        self.tokens_per_s: float | None = None
        """The measured speed of catching up."""
        self._decoder = decoder
        self._n_ctx = n_ctx
        self._end_ids = frozenset(end_ids)
        self._stopping = stopping
        self._drafts: dict[int, Draft] = {}

    def guess(
        self, wishes: Sequence[Wish], *, n_decoding: int, budget: int, seconds: Seconds
    ) -> list[Drafted]:
        """What may follow each task, ``budget`` tokens in all.

        ``n_decoding`` tokens are computed by the target anyhow, in what ``seconds`` tells.
        """
        nothing = [NOTHING] * len(wishes)
        if self.failed or not wishes or budget < 1:
            return nothing
        try:
            found = self._guess(wishes, n_decoding=n_decoding, budget=budget, seconds=seconds)
        except DecodeFailed as error:
            self._give_up(error)
            return nothing
        return [found.get(id(wish.task), NOTHING) for wish in wishes]

    def keep_only(self, tasks: Sequence[Task]) -> None:
        """Let go of all other tasks: they wait, or are computed again."""
        kept = set(map(id, tasks))
        for draft in [each for key, each in self._drafts.items() if key not in kept]:
            self.release(draft.task)

    def release(self, task: Task) -> None:
        """The task ended, or waits: its cells stay cached for whoever goes on from them."""
        draft = self._drafts.pop(id(task), None)
        if draft is None:
            return
        try:
            draft.learn(self.acceptance)
            draft.trim(self.cache, len(task.tokens))
            self.cache.close(draft.lease)
        except DecodeFailed as error:
            self._give_up(error)

    def start_over(self) -> None:
        """After a failure that nobody foresaw: forget every task, empty the cache."""
        self._drafts.clear()
        self.cache.clear()
        if not self.failed:
            self._decoder.clear()

    def check(self) -> None:
        """AssertionError if the books do not agree."""
        self.cache.check()
        for draft in self._drafts.values():
            assert draft.n_sure <= draft.lease.n_tokens
            assert draft.lease.node.end <= draft.n_sure, "a guess is shared"

    def close(self) -> None:
        """Free the draft model; may be called twice."""
        self._decoder.close()

    def _guess(
        self, wishes: Sequence[Wish], *, n_decoding: int, budget: int, seconds: Seconds
    ) -> dict[int, Drafted]:
        known = {id(wish.task): self._synced(wish) for wish in wishes}
        ready: list[tuple[Wish, Draft]] = []
        far: list[tuple[Wish, Draft]] = []
        for wish in wishes:
            draft = known[id(wish.task)]
            if draft is not None:
                (ready if draft.n_behind <= NEAR else far).append((wish, draft))
        forced = [(w, d) for w, d in ready if w.forced]
        free = [(w, d) for w, d in ready if not w.forced]
        depth = best_depth(
            self.acceptance.mean,
            n_decoding=n_decoding,
            n_drafting=max(1, len(free)),
            n_max=min(MAX_DEPTH, max(1, budget // max(1, len(free)))),
            seconds=seconds,
            draft_seconds=self.cost.seconds,
        )
        pays = self.acceptance.trusted and depth.n_tokens > 0
        if self.acceptance.trusted and not pays:
            self.account.close_first()
        if free and not pays:  # there is enough to try
            far = [(wish, draft) for wish, draft in far if wish.forced]
        self._catch_up(far, depth if pays else Depth())
        found = self._draft(forced, MAX_DEPTH, budget, token_s=None) if forced else {}
        budget -= sum(len(each.tokens) for each in found.values())
        token_s = (seconds(n_decoding) or 0.0) / n_decoding
        if pays:
            found |= self._draft(free, depth.n_tokens, budget, token_s=token_s)
        elif free:
            found |= self._trial(free, n_decoding, budget, seconds)
        return found

    def _trial(
        self, ready: Sequence[tuple[Wish, Draft]], n_decoding: int, budget: int, seconds: Seconds
    ) -> dict[int, Drafted]:
        """A draft for one sequence, to see how good it is, if that can be afforded."""
        one = min(ready, key=lambda each: each[1].n_behind)
        depth = trial_depth(self.acceptance.mean)
        alone, wider = seconds(n_decoding), seconds(n_decoding + depth)
        checking = max(0.0, (wider or 0.0) - (alone or 0.0))
        if not self.account.covers(depth * (self.cost.seconds(1) or 0.0) + checking):
            return {}
        started = time.monotonic()
        found = self._draft([one], depth, budget, token_s=None)
        self.account.spend(time.monotonic() - started + checking)
        return found

    def _catch_up(self, far: Sequence[tuple[Wish, Draft]], depth: Depth) -> None:
        """One chunk of one sequence's missing tokens, where that is wished, pays or is afforded."""
        for wish, draft in sorted(far, key=lambda each: (not each[0].forced, each[1].n_behind)):
            task, n_behind = draft.task, draft.n_behind
            pays = worth_catching_up(
                n_behind,
                n_generated=len(task.tokens) - task.n_prompt,
                n_most=wish.n_max,
                saved_s=depth.saved_s,
                tokens_per_s=self.tokens_per_s,
            )
            on_trial = not wish.forced and not pays
            took = n_behind / self.tokens_per_s if self.tokens_per_s else 0.0
            if on_trial and (depth.n_tokens or not self.account.covers(took)):
                continue
            n_tokens = min(n_behind - 1, chunk_size(self.tokens_per_s, self._decoder.n_batch))
            at = draft.lease.n_tokens
            if not self.cache.make_room(n_tokens):
                return
            seconds = self._compute([draft], [task.tokens[at : at + n_tokens]])[1]
            draft.n_sure = draft.lease.n_tokens
            if on_trial:
                self.account.spend(seconds)
            if n_tokens >= _MIN_MEASURED and seconds > 0:
                now, before = n_tokens / seconds, self.tokens_per_s
                self.tokens_per_s = (
                    now if before is None else _SPEED_MEMORY * before + (1 - _SPEED_MEMORY) * now
                )
            return

    def _draft(
        self,
        wanted: Sequence[tuple[Wish, Draft]],
        depth: int,
        budget: int,
        *,
        token_s: float | None,
    ) -> dict[int, Drafted]:
        """Drafts, one token of every sequence after the other.

        Without ``token_s`` as deep as asked for; with it, only as far as that seems worth it.
        """
        active: list[Draft] = []
        n_tokens = n_planned = 0
        most: dict[int, int] = {}
        for wish, draft in wanted:
            n = min(depth, wish.n_max, budget - n_planned)
            if n < 1 or n_tokens + draft.n_behind > self._decoder.n_batch:
                continue
            active.append(draft)
            most[id(draft)] = n
            n_planned += n
            n_tokens += draft.n_behind
        if not active or not self.cache.make_room(n_tokens + n_planned):
            return {}
        drafted = list(active)
        chances: dict[int, list[float]] = {id(draft): [] for draft in active}
        for draft in active:
            draft.n_from, draft.guessed = len(draft.task.tokens), []
        feeds = [draft.task.tokens[draft.lease.n_tokens :] for draft in active]
        while active:
            found, _ = self._compute(active, feeds, wanted=True)
            for draft, likely in zip(active, found, strict=True):
                draft.n_sure = max(draft.n_sure, min(draft.lease.n_tokens, draft.n_from))
                own = chances[id(draft)]
                before = own[-1] if own else 1.0
                own.append(before * self.acceptance.chance(likely.confidence))
                draft.guessed.append(likely)
            active = [
                draft
                for draft in active
                if len(draft.guessed) < most[id(draft)]
                and draft.guessed[-1].token not in self._end_ids
            ]
            if token_s is not None and active:
                last = [chances[id(draft)][-1] for draft in active]
                go_on = going_on(
                    last, self.acceptance.mean, token_s=token_s, draft_seconds=self.cost.seconds
                )
                active = [active[i] for i in go_on]
            feeds = [[draft.guessed[-1].token] for draft in active]
        return {
            id(draft.task): Drafted(
                [each.token for each in draft.guessed], chances[id(draft)], whole=token_s is None
            )
            for draft in drafted
        }

    def _compute(
        self, drafts: Sequence[Draft], feeds: Sequence[Sequence[int]], *, wanted: bool = False
    ) -> tuple[Sequence[Likely], float]:
        """One decode, entered in the books; what follows, and how long it took."""
        started = time.monotonic()
        found = self._decoder.decode(
            [
                Feed(draft.lease.sequence, draft.lease.n_tokens, tokens)
                for draft, tokens in zip(drafts, feeds, strict=True)
            ],
            wanted=wanted,
        )
        seconds = time.monotonic() - started
        self.n_steps += 1
        for draft, tokens in zip(drafts, feeds, strict=True):
            self.cache.extend(draft.lease, tokens)
        self.cost.note(sum(map(len, feeds)), seconds)
        return found, seconds

    def _synced(self, wish: Wish) -> Draft | None:
        """A task's draft without what turned out wrong; None where it cannot have one."""
        task = wish.task
        if wish.n_max < 1 or len(task.tokens) + MAX_DEPTH > self._n_ctx:
            return None
        draft = self._drafts.get(id(task))
        if draft is None:
            lease = self.cache.open(task.tokens)
            if lease is None:
                return None
            draft = self._drafts[id(task)] = Draft(task, lease, lease.n_tokens)
        draft.learn(self.acceptance)
        draft.trim(self.cache, len(task.tokens) - 1)  # the last one tells what may follow
        if not draft.published and draft.n_behind <= NEAR:
            draft.published = True
            self.cache.publish(draft.lease)
        missing = task.tokens[draft.lease.n_tokens :]
        return draft if max(missing) < self._decoder.n_tokens else None

    def _give_up(self, error: DecodeFailed) -> None:
        self.failed = True
        self._drafts.clear()
        self.cache.clear()
        self.close()
        if not self._stopping():
            logger.warning("the draft model failed and is used no more: %s", error)
