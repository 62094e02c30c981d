"""What a caller chooses about a batch, and what it is told."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from mofa_gguf.contract import ConfigError, LLMProvider
from mofa_gguf.host.in_flight import RATE_LIMIT_WAITS_S


@dataclass(frozen=True)
class BatchOptions:
    """How a batch is run.

    Attributes:
        parallel: requests in flight at any time. More than the engine's ``max_parallel`` keep it
            fed; more than its ``max_queue`` besides are sent again later.
        max_tokens, temperature, seed: for chat lines that say nothing of them.
        ignore_model: ask the provider's default model, whatever model the lines name.
        ordered: put the output in the order of the input when all is done; until then, and
            without, it is in the order of completion.
        retry_failed: compute the lines again that an earlier run failed on.
        stop_after: end with BatchStopped when so many requests in a row fail with the same words,
            as they do when the provider is down; 0 never does.
        rate_limit_waits_s: how long to wait before each new try of a request that was refused
            because too many wait, where the provider names no time itself.
    """

    parallel: int = 32
    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None
    ignore_model: bool = False
    ordered: bool = False
    retry_failed: bool = False
    stop_after: int = 50
    rate_limit_waits_s: tuple[float, ...] = RATE_LIMIT_WAITS_S

    def __post_init__(self) -> None:
        for name, least in (("parallel", 1), ("stop_after", 0)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(f"{name} is at least {least}, not {value}", field=name)

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters of chat lines that are silent about them."""
        given = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }
        return {name: value for name, value in given.items() if value is not None}

    def digest(self, provider: LLMProvider) -> str:
        """Eight hexadecimal digits for all that decides an answer beside its line."""
        decisive = [provider.name(), provider.default_model(), self.ignore_model, self.defaults]
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class BatchReport:
    """How far a batch is, or what came of it.

    ``n_lines``, ``n_done`` and ``n_failed`` (which are among those done) count lines of the whole
    batch; the rest is about this run. Cached tokens are prompt tokens that were not computed.
    """

    n_lines: int
    n_done: int
    n_failed: int
    n_done_before: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    elapsed_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second."""
        return self.completion_tokens / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def cached_share(self) -> float:
        """The share of prompt tokens that were not computed."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "lines": self.n_lines,
            "done": self.n_done,
            "failed": self.n_failed,
            "done_before": self.n_done_before,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "cached_share": round(self.cached_share, 4),
            "tokens_per_s": round(self.tokens_per_s, 2),
            "elapsed_s": round(self.elapsed_s, 3),
        }
