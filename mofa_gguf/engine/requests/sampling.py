"""How the next token is chosen: as llama.cpp's sampler chain does, one a request.

The order is that of llama.cpp's common/sampling.cpp: biases, penalties, DRY, top-n-sigma, top-k,
typical, top-p, min-p, XTC, temperature, draw (by adaptive-p if asked for; mirostat takes the place
of everything from top-n-sigma on). What most requests ask for is done in that order without the
chain (:mod:`mofa_gguf.engine.requests.drawing`). Repetition is penalised over
prompt and answer; frequency and presence count the answer alone, as in the OpenAI API.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.requests.drawing import Draw, Drawer, FloatArray, most_likely
from mofa_gguf.engine.requests.penalties import Penalties
from mofa_gguf.engine.tokens.vocab import Vocab

_MIROSTAT_M = 100
_WHOLE = 2**20  # a window that no text outgrows
_DRY_BREAKERS = ("\n", ":", '"', "*")
_LONGEST_BREAKER = 40  # bytes; llama.cpp cuts longer ones


@dataclass(frozen=True)
class SamplingOptions:
    """Parameters of one request's sampler chain; the defaults leave the distribution as it is."""

    temperature: float = 1.0
    """0 takes the most likely token."""
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    """Negative: off."""
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    """Tokens the repeat penalty looks back over, prompt included; -1: all."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_last_n: int = 4096
    """Tokens DRY looks back over, prompt included; -1: all."""
    dry_sequence_breakers: tuple[str, ...] = _DRY_BREAKERS
    """Texts behind which a repetition begins anew."""
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    """Draw tokens whose probability is near this one (adaptive-p); negative: off."""
    adaptive_decay: float = 0.9
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logit_bias_text: Mapping[str, float] = field(default_factory=dict)
    """Added to the logit of every token of these texts."""
    seed: int | None = None
    """None draws a new one."""
    min_keep: int = 1


class Sampler:
    """Chooses one request's tokens; owner of a ``llama_sampler`` chain where it needs one.

    ``prompt`` is what the repeat penalty and DRY look back on. With ``by_chain`` the chain does
    what is done without it otherwise.
    """

    def __init__(
        self,
        options: SamplingOptions,
        vocab: Vocab,
        *,
        prompt: Sequence[int],
        by_chain: bool = False,
    ) -> None:
        library = llama()
        self._llama = library
        self._keep: list[object] = []
        self._biases = _biases(options, vocab)
        self._breakers = _breakers(options)
        self.seed = options.seed if options.seed is not None else secrets.randbits(31)
        self._plain = None if by_chain else _without_chain(options, seed=self.seed)
        self._chain: Any = None
        if self._plain is None:
            self._chain = self._chain_of(options, vocab, prompt)
        self._bias_ids = np.fromiter(self._biases, np.intp)
        self._bias_values = np.fromiter(self._biases.values(), np.float32)
        self._penalties = _penalties(options, prompt) if self._plain is not None else None

    def sample(self, context_handle: Any, index: int, logits: FloatArray) -> int:
        """Choose a token from the logits of output ``index`` and take it into the history.

        May write over ``logits``. Raises EngineError where they are no numbers.
        """
        if self._plain is not None:
            if self._biases:
                logits[self._bias_ids] += self._bias_values
            if self._penalties is None:
                return self._plain(logits)
            self._penalties.apply(logits)
            token = self._plain(logits)
            self._penalties.accept(token)
            return token
        chosen: int = self._llama.llama_sampler_sample(self._chain, context_handle, index)
        return chosen

    def accept(self, token: int) -> None:
        """Take a token that was not sampled into the history."""
        if self._chain is not None:
            self._llama.llama_sampler_accept(self._chain, token)
        if self._penalties is not None:
            self._penalties.accept(token)

    def close(self) -> None:
        """Free the chain; may be called twice."""
        if self._chain:
            self._llama.llama_sampler_free(self._chain)
            self._chain = None

    def _chain_of(self, o: SamplingOptions, vocab: Vocab, prompt: Sequence[int]) -> Any:
        library = self._llama
        chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        for sampler in self._samplers(o, vocab, prompt):
            library.llama_sampler_chain_add(chain, sampler)
        return chain

    def _samplers(self, o: SamplingOptions, vocab: Vocab, prompt: Sequence[int]) -> list[Any]:
        samplers = self._adjustments(o, vocab, prompt)
        lib = self._llama
        if o.temperature <= 0:
            return [*samplers, lib.llama_sampler_init_greedy()]
        temperature = lib.llama_sampler_init_temp_ext(
            o.temperature, o.dynatemp_range, o.dynatemp_exponent
        )
        if o.mirostat == 1:
            draw = lib.llama_sampler_init_mirostat(
                vocab.n_tokens, self.seed, o.mirostat_tau, o.mirostat_eta, _MIROSTAT_M
            )
            return [*samplers, temperature, draw]
        if o.mirostat == 2:
            draw = lib.llama_sampler_init_mirostat_v2(self.seed, o.mirostat_tau, o.mirostat_eta)
            return [*samplers, temperature, draw]
        samplers += self._truncations(o)
        if o.adaptive_target >= 0:
            draw = lib.llama_sampler_init_adaptive_p(o.adaptive_target, o.adaptive_decay, self.seed)
        else:
            draw = lib.llama_sampler_init_dist(self.seed)
        return [*samplers, temperature, draw]

    def _adjustments(self, o: SamplingOptions, vocab: Vocab, prompt: Sequence[int]) -> list[Any]:
        lib, n_vocab = self._llama, vocab.n_tokens
        samplers = []
        if self._biases:
            biases = (lib.llama_logit_bias * len(self._biases))()
            for entry, (token, bias) in zip(biases, self._biases.items(), strict=True):
                entry.token, entry.bias = token, bias
            self._keep.append(biases)
            samplers.append(lib.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
        if o.repeat_penalty != 1.0 and o.repeat_last_n != 0:
            last_n = _window(o.repeat_last_n)
            repeat = lib.llama_sampler_init_penalties(n_vocab, last_n, o.repeat_penalty, 0.0, 0.0)
            for token in prompt[-last_n:]:
                lib.llama_sampler_accept(repeat, token)
            samplers.append(repeat)
        if o.frequency_penalty or o.presence_penalty:
            samplers.append(
                lib.llama_sampler_init_penalties(
                    n_vocab, _WHOLE, 1.0, o.frequency_penalty, o.presence_penalty
                )
            )
        if o.dry_multiplier:
            samplers.append(self._dry(o, vocab, prompt))
        return samplers

    def _dry(self, o: SamplingOptions, vocab: Vocab, prompt: Sequence[int]) -> Any:
        lib = self._llama
        breakers = (ctypes.c_char_p * len(self._breakers))(*self._breakers)
        last_n = _window(o.dry_last_n)
        dry = lib.llama_sampler_init_dry(
            vocab.pointer,
            o.dry_multiplier,
            o.dry_base,
            o.dry_allowed_length,
            last_n,
            breakers,
            len(self._breakers),
        )
        for token in prompt[-last_n:] if last_n else ():
            lib.llama_sampler_accept(dry, token)
        return dry

    def _truncations(self, o: SamplingOptions) -> list[Any]:
        lib, keep = self._llama, max(1, o.min_keep)
        samplers = []
        if o.top_n_sigma > 0:
            samplers.append(lib.llama_sampler_init_top_n_sigma(o.top_n_sigma))
        if o.top_k > 0:
            samplers.append(lib.llama_sampler_init_top_k(o.top_k))
        if o.typical_p < 1:
            samplers.append(lib.llama_sampler_init_typical(o.typical_p, keep))
        if o.top_p < 1:
            samplers.append(lib.llama_sampler_init_top_p(o.top_p, keep))
        if o.min_p > 0:
            samplers.append(lib.llama_sampler_init_min_p(o.min_p, keep))
        if o.xtc_probability > 0:
            samplers.append(
                lib.llama_sampler_init_xtc(o.xtc_probability, o.xtc_threshold, keep, self.seed)
            )
        return samplers


def _without_chain(o: SamplingOptions, *, seed: int) -> Callable[[FloatArray], int] | None:
    """What chooses as the chain does, and sooner: the chain makes a list of all tokens first.

    None for what only the chain can.
    """
    if o.dry_multiplier:
        return None
    if o.temperature <= 0:
        return most_likely
    special = o.mirostat or o.adaptive_target >= 0 or o.xtc_probability > 0 or o.dynatemp_range > 0
    if special or o.typical_p < 1 or o.top_n_sigma > 0:
        return None
    draw = Draw(o.temperature, o.top_k, o.top_p, o.min_p, o.min_keep)
    return Drawer(draw, seed=seed)


def _penalties(o: SamplingOptions, prompt: Sequence[int]) -> Penalties | None:
    if o.repeat_penalty == 1.0 and not o.frequency_penalty and not o.presence_penalty:
        return None
    return Penalties(
        repeat=o.repeat_penalty,
        last_n=_window(o.repeat_last_n),
        frequency=o.frequency_penalty,
        presence=o.presence_penalty,
        prompt=prompt,
    )


def _window(last_n: int) -> int:
    return _WHOLE if last_n < 0 else last_n


def _breakers(o: SamplingOptions) -> list[bytes]:
    texts = [text.encode() for text in o.dry_sequence_breakers]
    for text, data in zip(o.dry_sequence_breakers, texts, strict=True):
        if not 0 < len(data) <= _LONGEST_BREAKER:
            raise InvalidOption(
                "dry_sequence_breakers", f"has {text!r}, which is not 1 to {_LONGEST_BREAKER} bytes"
            )
    return texts


def _biases(o: SamplingOptions, vocab: Vocab) -> dict[int, float]:
    """The bias of each token, from ids and texts added up; what the model says never to say.

    Raises InvalidOption for an id that the vocabulary does not have; llama.cpp would pass it over.
    """
    found = dict(o.logit_bias)
    for token in found:
        if not 0 <= token < vocab.n_tokens:
            raise InvalidOption("logit_bias", f"names token {token} of {vocab.n_tokens}")
    for text, bias in o.logit_bias_text.items():
        for token in set(vocab.tokenize(text, parse_special=True)):
            found[token] = found.get(token, 0.0) + bias
    return {**found, **dict.fromkeys(vocab.suppressed, -math.inf)}
