"""Plans for models by their names, for the commands that show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mofa_gguf.engine.planning.load_plan import LoadPlan
    from mofa_gguf.engine.planning.plan import Share
    from mofa_gguf.engine.planning.whole import WholePlan
    from mofa_gguf.settings import GGUFConfig

MODEL, DRAFT, EMBEDDING = "model", "draft model", "embedding, once asked for"


@dataclass(frozen=True)
class Outlook:
    """What a configured model takes, and what lies beside it without being used."""

    whole: WholePlan
    unused: tuple[Path, ...] = ()
    """Files that read images or sound (mmproj) in the model's folder."""
    has_template: bool = True
    """Whether conversations have a form of their own, or need none."""
    n_longest: int | None = None
    """Most tokens of a text to embed, where embedding is all that the model does."""

    @property
    def target(self) -> LoadPlan:
        """The plan of the model itself."""
        return self.whole.target

    @property
    def context(self) -> str:
        """How much text the model takes, in words."""
        n_tokens = self.target.plan.n_ctx
        if self.n_longest is None:
            return f"{n_tokens} tokens of context"
        return f"texts of up to {self.n_longest} tokens to embed, {n_tokens} tokens at a time"

    def rows(self) -> list[tuple[Share, str]]:
        """Everything that takes memory of a device, with what it is."""
        rows = [(share, MODEL) for share in _shares(self.target)]
        if self.whole.draft is not None:
            rows += [(share, DRAFT) for share in _shares(self.whole.draft)]
        if self.target.embedding is not None:
            rows += [(share, EMBEDDING) for share in self.target.embedding.shares]
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the model's plan, and beside it what else there is."""
        draft, embedding = self.whole.draft, self.target.embedding
        told = _as_dict(self.target)
        told["fits"] = self.whole.fits
        told["draft"] = None if draft is None else _as_dict(draft)
        told["embedding"] = None
        if embedding is not None:
            shares = [_share(share) for share in embedding.shares]
            told["embedding"] = {
                "n_tokens": embedding.n_tokens,
                "n_bytes": embedding.n_bytes,
                "problem": embedding.problem,
                "shares": shares,
            }
        told["prefix_bytes"] = self.target.prefix_bytes
        told["has_template"] = self.has_template
        told["n_longest"] = self.n_longest
        told["unused"] = [str(path) for path in self.unused]
        return told


def plan_for(config: GGUFConfig) -> Outlook:
    """The plan for the model that ``config`` names, here and now.

    A checkpoint folder is converted first, as on its first use; nothing is downloaded. Raises what
    finding the models raises (StoreError, ConversionError), EngineError and ConfigError.
    """
    from dataclasses import replace

    from mofa_gguf.engine.files.header import read_header
    from mofa_gguf.engine.planning.whole import plan_ahead
    from mofa_gguf.provider.longest import longest_text
    from mofa_gguf.provider.template_source import template_source
    from mofa_gguf.store import verdict_folder

    path = _find(config.model, config)
    draft = _find(config.draft_model, config) if config.draft_model is not None else None
    options = replace(
        config.engine_options(),
        verdicts=str(verdict_folder(config.cache_dir)),
        draft_model=str(draft) if draft is not None else None,
    )
    header = read_header(path)
    whole = plan_ahead(header, options)
    templated = template_source(config, header.metadata) is not None
    return Outlook(
        whole,
        unused=tuple(sorted(path.parent.glob("*mmproj*.gguf"))),
        has_template=templated or whole.target.embedding is None,
        n_longest=longest_text(header, n_batch=options.n_embedding_batch),
    )


def _find(model: str, config: GGUFConfig) -> Path:
    from mofa_gguf.store import resolve

    return resolve(
        model, cache_dir=config.cache_dir, quantization=config.quantization, offline=True
    ).path


def _shares(load: LoadPlan) -> tuple[Share, ...]:
    return (load.plan.host, *load.plan.devices)


def _share(share: Share) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(share), "n_bytes": share.n_bytes}


def _as_dict(load: LoadPlan) -> dict[str, Any]:
    return {
        **load.plan.to_dict(),
        "resident_bytes": load.resident_bytes,
        "limit": load.limit,
        "measured": load.measured,
        "use_mmap": load.options.use_mmap,
    }
