"""Rotary position embeddings: from config.json to what llama.cpp computes with.

Sources: transformers' modeling_rope_utils.py says what the values mean, llama.cpp's
src/llama-context.cpp and src/llama-model.cpp what it does with the keys. transformers 5 writes one
object ``rope_parameters``; earlier versions ``rope_theta`` and ``rope_scaling``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.config import Config
from mofa_gguf.convert.metadata import Metadata

DEFAULT_THETA = 10_000.0
_DEFAULT_BETAS = (32.0, 1.0)


@dataclass(frozen=True)
class Rope:
    """How positions are rotated. ``kind`` is transformers' rope_type, "default" for plain."""

    kind: str
    theta: float
    settings: Config
    n_context: int
    rotated_part: float
    """How much of a head is rotated: 0 to 1."""
    n_original: int
    """The context before it was stretched, where the settings themselves do not say it."""

    def write(self, metadata: Metadata, architecture: str) -> list[str]:
        """Set llama.cpp's keys; returns warnings. Raises CheckpointError for unknown kinds."""
        metadata.float32(f"{architecture}.rope.freq_base", self.theta)
        prefix = f"{architecture}.rope.scaling"
        if self.kind in ("default", "llama3"):
            return []
        if self.kind == "linear":
            metadata.string(f"{prefix}.type", "linear")
            metadata.float32(f"{prefix}.factor", self._factor)
            return []
        if self.kind == "dynamic":
            return [
                "the checkpoint rescales its positions beyond "
                f"{self.n_context} tokens (dynamic rope scaling) and llama.cpp does not: "
                "longer texts will come out worse"
            ]
        if self.kind == "yarn":
            self._write_yarn(metadata, prefix)
            return []
        if self.kind == "longrope":
            return self._write_longrope(metadata, prefix)
        raise self.settings.fail(
            "rope_type", f"{self.kind!r:.60} is not known here; known are {', '.join(KINDS)}"
        )

    @property
    def _factor(self) -> float:
        return self.settings.number("factor", minimum=1e-6)

    @property
    def _n_original_context(self) -> int:
        return self.settings.integer("original_max_position_embeddings", default=self.n_original)

    def _write_yarn(self, metadata: Metadata, prefix: str) -> None:
        factor = self._factor
        attention_factor = self._attention_factor(factor)
        if self._is_plain_yarn:
            metadata.string(f"{prefix}.type", "yarn")
            metadata.float32(f"{prefix}.factor", factor)
            metadata.uint32(f"{prefix}.original_context_length", self._n_original_context)
            # llama.cpp multiplies by this in any case; attn_factor is what is left.
            attention_factor /= _magnitude(factor)
        if not math.isclose(attention_factor, 1.0, rel_tol=1e-6):
            metadata.float32(f"{prefix}.attn_factor", attention_factor)

    def _write_longrope(self, metadata: Metadata, prefix: str) -> list[str]:
        n_original = self._n_original_context
        factor = self.settings.number("factor", default=self.n_context / n_original, minimum=1e-6)
        # LongRoPE's own factor (arXiv:2402.13753, 3.2), as transformers takes it.
        attention_factor = (
            math.sqrt(1 + math.log(factor) / math.log(n_original))
            if factor > 1.0 and n_original > 1
            else 1.0
        )
        attention_factor = self.settings.number(
            "attention_factor", default=attention_factor, minimum=1e-6
        )
        metadata.string(f"{prefix}.type", "longrope")
        metadata.uint32(f"{prefix}.original_context_length", n_original)
        metadata.float32(f"{prefix}.attn_factor", attention_factor)
        return [
            f"with a context of more than {n_original} tokens llama.cpp takes the rope factors for "
            "long texts from the first token on; transformers takes them when a text is that long"
        ]

    def longrope_factors(self, n_rotated: int) -> dict[str, npt.NDArray[np.float32]]:
        """For LongRoPE: the tensors of factors by their GGUF names, ``n_rotated / 2`` each."""
        if self.kind != "longrope":
            return {}
        return {
            f"rope_factors_{length}.weight": np.array(
                self.settings.numbers(f"{length}_factor", length=n_rotated // 2, minimum=1e-6),
                dtype=np.float32,
            )
            for length in ("long", "short")
        }

    @property
    def _is_plain_yarn(self) -> bool:
        """Whether llama.cpp's own YaRN is meant: it knows one ramp, with rounded bounds."""
        return self._betas == _DEFAULT_BETAS and self.settings.boolean("truncate", default=True)

    @property
    def _betas(self) -> tuple[float, float]:
        fast, slow = _DEFAULT_BETAS
        return (
            self.settings.number("beta_fast", default=fast, minimum=1e-6),
            self.settings.number("beta_slow", default=slow, minimum=1e-6),
        )

    @property
    def attention_factor(self) -> float:
        """What YaRN multiplies sines and cosines by."""
        return self._attention_factor(self._factor)

    def _attention_factor(self, factor: float) -> float:
        if "attention_factor" in self.settings:
            return self.settings.number("attention_factor", minimum=1e-6)
        mscale = self.settings.number("mscale", default=0.0)
        over_all = self.settings.number("mscale_all_dim", default=0.0)
        if mscale and over_all:
            return _magnitude(factor, mscale) / _magnitude(factor, over_all)
        return _magnitude(factor)

    def frequency_factors(self, n_rotated: int) -> npt.NDArray[np.float32] | None:
        """What each of the ``n_rotated / 2`` frequencies is divided by, or None.

        For the kinds that llama.cpp takes as a tensor, ``rope_freqs``: llama3, and YaRN with
        another ramp than its own.
        """
        if self.kind == "llama3":
            return self._llama3_factors(n_rotated)
        if self.kind == "yarn" and not self._is_plain_yarn:
            return self._yarn_factors(n_rotated)
        return None

    def _llama3_factors(self, n_rotated: int) -> npt.NDArray[np.float32]:
        factor = self.settings.number("factor", default=8.0, minimum=1e-6)
        low = self.settings.number("low_freq_factor", default=1.0, minimum=1e-6)
        high = self.settings.number("high_freq_factor", default=4.0, minimum=1e-6)
        if high <= low:
            raise self.settings.fail("high_freq_factor", f"must be above low_freq_factor ({low:g})")
        n_original = self.settings.integer("original_max_position_embeddings", default=8192)
        exponents = np.arange(0, n_rotated, 2, dtype=np.float32) / np.float32(n_rotated)
        frequencies = np.float32(1.0) / np.power(np.float32(self.theta), exponents)
        wavelengths = np.float32(2 * math.pi) / frequencies
        smooth = (np.float32(n_original) / wavelengths - np.float32(low)) / np.float32(high - low)
        # Long waves are slowed down by the factor, short ones stay, between them it fades.
        fading = np.float32(1.0) / ((1 - smooth) / np.float32(factor) + smooth)
        is_long, is_short = wavelengths > n_original / low, wavelengths < n_original / high
        return np.where(is_short, 1.0, np.where(is_long, factor, fading)).astype(np.float32)

    def _yarn_factors(self, n_rotated: int) -> npt.NDArray[np.float32]:
        """YaRN's ramp between unchanged and stretched frequencies (arXiv:2309.00071, 3.2)."""
        factor = self._factor
        if self.theta <= 1.0:
            raise self.settings.fail("rope_theta", "must be above 1 for yarn")

        def dimension(rotations: float) -> float:
            wavelength = self._n_original_context / (rotations * 2 * math.pi)
            return n_rotated * math.log(wavelength) / (2 * math.log(self.theta))

        low, high = (dimension(beta) for beta in self._betas)
        if self.settings.boolean("truncate", default=True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, n_rotated - 1)
        width = max(high - low, 0.001)
        ramp = np.clip((np.arange(n_rotated // 2) - low) / width, 0, 1)
        factors: npt.NDArray[np.float32] = (1 / (ramp / factor + (1 - ramp))).astype(np.float32)
        return factors


KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
# Names that LongRoPE had before, and the one of ropes in sections, which are read elsewhere.
_RENAMED_KINDS = {"su": "longrope", "mrope": "default"}


def _magnitude(factor: float, mscale: float = 1.0) -> float:
    """YaRN's attention factor for a context stretched by ``factor`` (arXiv:2309.00071, 3.4)."""
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0


def read_rope(config: Config, n_context: int, *, layers: str | None = None) -> Rope:
    """The rope settings of a config.json, whichever version of transformers wrote it.

    ``layers`` names the kind of layers ("full_attention") where the settings may differ.
    """
    found = config.section("rope_parameters", "rope_scaling")
    settings = found if found is not None else Config({}, config.path)
    if settings.section("full_attention", "sliding_attention") is not None:
        if layers is None:
            raise config.fail(
                "rope_parameters", "differ from layer to layer, which is not known here"
            )
        settings = settings.section(layers) or Config({}, config.path)
    default_theta = config.number("rope_theta", default=DEFAULT_THETA, minimum=1e-6)
    theta = settings.number("rope_theta", default=default_theta, minimum=1e-6)
    partial = settings.number(
        "partial_rotary_factor", default=config.number("partial_rotary_factor", default=1.0)
    )
    if not 0.0 < partial <= 1.0:
        raise config.fail("partial_rotary_factor", f"must be above 0 and at most 1, not {partial}")
    kind = settings.string("rope_type", "type", default="default")
    n_original = config.integer("original_max_position_embeddings", default=n_context)
    return Rope(_RENAMED_KINDS.get(kind, kind), theta, settings, n_context, partial, n_original)
