"""What each sampling parameter does to the choice of a token, on logits made for it."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import Sampler, SamplingOptions
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

A, B, C, D = (ord(letter) for letter in "ABCD")
END = 258


@pytest.fixture(scope="module")
def vocab(tiny_model: Path) -> Iterator[Vocab]:
    with VocabFile(tiny_model) as file:
        yield file.vocab


@dataclass(frozen=True)
class Choice:
    """The chosen token, and the probabilities it was drawn from."""

    token: int
    probabilities: dict[int, float]


def choose(
    vocab: Vocab,
    probabilities: dict[int, float],
    *,
    prompt: Sequence[int] = (),
    answer: Sequence[int] = (),
    **options: Any,
) -> Choice:
    """One choice among tokens of these probabilities."""
    return choose_in_a_row(vocab, probabilities, 1, prompt=prompt, answer=answer, **options)[0]


def choose_in_a_row(
    vocab: Vocab,
    probabilities: dict[int, float],
    n: int,
    *,
    prompt: Sequence[int] = (),
    answer: Sequence[int] = (),
    **options: Any,
) -> list[Choice]:
    """``n`` choices of one sampler, each among tokens of the same probabilities."""
    library = llama()
    asked = SamplingOptions(**{"seed": 1, **options})
    sampler = Sampler(asked, vocab, prompt=prompt, by_chain=True)
    for token in answer:
        sampler.accept(token)
    choices = []
    for _ in range(n):
        entries = (library.llama_token_data * len(probabilities))()
        for entry, (token, share) in zip(entries, sorted(probabilities.items()), strict=True):
            entry.id, entry.logit, entry.p = token, math.log(share), 0.0
        array = library.llama_token_data_array(entries, len(entries), -1, False)
        library.llama_sampler_apply(sampler._chain, ctypes.byref(array))
        left = {array.data[i].id: array.data[i].p for i in range(array.size)}
        total = sum(left.values()) or 1.0
        choices.append(
            Choice(
                array.data[array.selected].id,
                {t: p / total for t, p in left.items() if p / total > 1e-9},
            )
        )
        sampler.accept(choices[-1].token)
    sampler.close()
    return choices


def drawn(vocab: Vocab, probabilities: dict[int, float], n: int = 200, **options: Any) -> Counter:  # type: ignore[type-arg]
    return Counter(choose(vocab, probabilities, seed=i, **options).token for i in range(n))


FALLING = {A: 0.5, B: 0.3, C: 0.15, D: 0.05}


def left_of(vocab: Vocab, probabilities: dict[int, float] = FALLING, **options: Any) -> set[int]:
    return set(choose(vocab, probabilities, **options).probabilities)


def test_the_defaults_leave_the_distribution_as_it_is(vocab: Vocab) -> None:
    assert choose(vocab, FALLING).probabilities == pytest.approx(FALLING, abs=1e-4)
    counts = drawn(vocab, FALLING)
    assert counts[A] > counts[B] > counts[C] > counts[D] > 0


def test_temperature_sharpens_and_flattens(vocab: Vocab) -> None:
    assert choose(vocab, FALLING, temperature=0.25).probabilities[A] > 0.85
    assert choose(vocab, FALLING, temperature=2.0).probabilities[A] < 0.4
    assert set(drawn(vocab, FALLING, n=20, temperature=0)) == {A}


def test_truncation_keeps_what_each_sampler_keeps(vocab: Vocab) -> None:
    assert left_of(vocab, top_k=2) == {A, B}
    assert left_of(vocab, top_p=0.75) == {A, B}
    assert left_of(vocab, min_p=0.2) == {A, B, C}
    assert left_of(vocab, top_n_sigma=1.0) == {A, B}
    assert left_of(vocab, top_p=0.1, min_keep=3) == {A, B, C}
    # Typical are tokens whose surprise is near the expected one: not the likeliest here.
    assert left_of(vocab, {A: 0.4, B: 0.2, C: 0.2, D: 0.2}, typical_p=0.5) == {B, C, D}


def test_xtc_takes_the_likeliest_out(vocab: Vocab) -> None:
    assert left_of(vocab, xtc_probability=1.0, xtc_threshold=0.2) == {B, C, D}
    assert left_of(vocab, xtc_probability=1.0, xtc_threshold=0.5) == set(FALLING)


def test_a_dynamic_temperature_is_low_where_the_model_is_sure(vocab: Vocab) -> None:
    sure, unsure = {A: 0.97, B: 0.03}, {A: 0.4, B: 0.3, C: 0.3}
    for probabilities, sharper in ((sure, True), (unsure, False)):
        fixed = choose(vocab, probabilities, top_k=3).probabilities[A]
        dynamic = choose(
            vocab, probabilities, top_k=3, dynatemp_range=0.9, dynatemp_exponent=1.0
        ).probabilities[A]
        assert (dynamic > fixed) == sharper
    # The higher the exponent, the nearer to its lowest the temperature stays.
    steep, plain = (
        choose(vocab, unsure, dynatemp_range=0.9, dynatemp_exponent=exponent).probabilities[A]
        for exponent in (20.0, 1.0)
    )
    assert steep > plain


def test_mirostat_holds_surprise_at_its_target(vocab: Vocab) -> None:
    many = {token: 0.2 / (token + 1) for token in range(64)}
    for version in (1, 2):
        low = drawn(vocab, FALLING, n=40, mirostat=version, mirostat_tau=0.1)
        assert set(low) == {A}
        high = drawn(vocab, many, n=40, mirostat=version, mirostat_tau=8.0)
        assert len(high) > 10
        for eta, others in ((1e-6, False), (5.0, True)):
            row = choose_in_a_row(
                vocab, FALLING, 40, mirostat=version, mirostat_tau=0.3, mirostat_eta=eta
            )
            assert any(choice.token != A for choice in row) == others


def test_adaptive_p_prefers_probabilities_near_its_target(vocab: Vocab) -> None:
    probabilities = {A: 0.9, B: 0.1}
    near_low = drawn(vocab, probabilities, adaptive_target=0.1)
    near_high = drawn(vocab, probabilities, adaptive_target=0.9)
    off = drawn(vocab, probabilities)
    assert near_low[B] > off[B] > near_high[B]


def test_adaptive_p_makes_up_for_what_it_chose_before(vocab: Vocab) -> None:
    def n_changes(decay: float) -> int:
        row = choose_in_a_row(
            vocab, {A: 0.9, B: 0.1}, 60, adaptive_target=0.5, adaptive_decay=decay
        )
        return sum(a.token != b.token for a, b in itertools.pairwise(row))

    assert n_changes(0.0) > n_changes(0.99)


def test_the_repeat_penalty_looks_back_over_prompt_and_answer(vocab: Vocab) -> None:
    even = {A: 0.5, B: 0.5}

    def share(prompt: Sequence[int], answer: Sequence[int], last_n: int) -> float:
        options = {"repeat_penalty": 3.0, "repeat_last_n": last_n}
        return choose(vocab, even, prompt=prompt, answer=answer, **options).probabilities.get(A, 0)

    filler = [C] * 10
    assert share([A], [], 64) < 0.4
    assert share([], [A], 64) < 0.4
    assert share([A, *filler], [], 5) == pytest.approx(0.5, abs=0.01)
    assert share([A], filler, 5) == pytest.approx(0.5, abs=0.01)
    assert share([A, *filler], filler, -1) < 0.4
    assert share([A], [], 0) == pytest.approx(0.5, abs=0.01)


def test_frequency_and_presence_count_the_answer_alone(vocab: Vocab) -> None:
    even = {A: 0.5, B: 0.5}
    for name in ("frequency_penalty", "presence_penalty"):
        in_prompt = choose(vocab, even, prompt=[A] * 5, **{name: 1.0})
        assert in_prompt.probabilities[A] == pytest.approx(0.5, abs=0.01)
        once = choose(vocab, even, answer=[A], **{name: 1.0}).probabilities[A]
        often = choose(vocab, even, answer=[A] * 4, **{name: 1.0}).probabilities[A]
        assert once == pytest.approx(1 / (1 + math.e), abs=0.01)
        if name == "frequency_penalty":
            assert often < once / 2
        else:
            assert often == pytest.approx(once, abs=0.01)


def test_dry_makes_it_unlikely_to_go_on_with_a_repetition(vocab: Vocab) -> None:
    even, said = {C: 0.5, D: 0.5}, [A, B, C, 1, 2, 3]

    def share(**options: Any) -> float:
        settings = {"dry_multiplier": 2.0, "dry_allowed_length": 1, **options}
        return choose(vocab, even, prompt=said, answer=[A, B], **settings).probabilities.get(C, 0)

    assert share() < 0.1
    assert share(dry_multiplier=0.0) == pytest.approx(0.5, abs=0.01)
    assert share(dry_allowed_length=5) == pytest.approx(0.5, abs=0.01)
    assert share(dry_last_n=4) == pytest.approx(0.5, abs=0.01)
    assert share(dry_last_n=0) == pytest.approx(0.5, abs=0.01)
    assert share(dry_last_n=-1) < 0.1
    assert share(dry_base=1.0) > share(dry_base=1.75) > share(dry_base=4.0)


def test_a_breaker_ends_what_dry_takes_for_a_repetition(vocab: Vocab) -> None:
    even, said = {C: 0.5, D: 0.5}, [A, B, C, 1, 2, 3]
    options: dict[str, Any] = {"dry_multiplier": 2.0, "dry_allowed_length": 1}

    def share(*breakers: str) -> float:
        choice = choose(
            vocab, even, prompt=said, answer=[A, B], dry_sequence_breakers=breakers, **options
        )
        return choice.probabilities.get(C, 0)

    assert share() < 0.1
    assert share("x") < 0.1
    assert share("B") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("breaker", ["", "x" * 41])
def test_a_breaker_that_llama_cpp_would_cut_or_skip_is_refused(vocab: Vocab, breaker: str) -> None:
    with pytest.raises(InvalidOption, match="dry_sequence_breakers"):
        choose(vocab, FALLING, dry_sequence_breakers=(breaker,))


def test_biases_go_by_token_and_by_text_and_add_up(vocab: Vocab) -> None:
    even = {A: 0.25, B: 0.25, C: 0.25, D: 0.25}
    by_id = choose(vocab, even, logit_bias={A: 2.0}).probabilities
    assert by_id[A] == pytest.approx(math.e**2 / (math.e**2 + 3), abs=0.01)
    assert choose(vocab, even, logit_bias_text={"A": 2.0}).probabilities == pytest.approx(by_id)
    assert left_of(vocab, even, logit_bias_text={"AB": -100.0}) == {C, D}
    both = choose(vocab, even, logit_bias={A: 2.0}, logit_bias_text={"A": -2.0}).probabilities
    assert both[A] == pytest.approx(0.25, abs=0.01)
    # A control token goes by its spelling.
    ended = choose(vocab, {A: 0.9, END: 0.1}, logit_bias_text={"<|im_end|>": 100.0})
    assert ended.token == END


def test_a_bias_for_a_token_that_does_not_exist_is_refused(vocab: Vocab) -> None:
    with pytest.raises(InvalidOption, match="logit_bias names token 259 of 259"):
        choose(vocab, FALLING, logit_bias={259: 1.0})


def test_the_seed_decides_every_draw(vocab: Vocab) -> None:
    for options in ({}, {"mirostat": 2}, {"adaptive_target": 0.5}, {"xtc_probability": 0.5}):
        first = [choose(vocab, FALLING, seed=i, **options).token for i in range(40)]
        again = [choose(vocab, FALLING, seed=i, **options).token for i in range(40)]
        assert first == again
        assert len(set(first)) > 1


def test_every_option_has_a_test_of_its_effect() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for field in fields(SamplingOptions):
        assert f"{field.name}=" in source or f'"{field.name}"' in source, field.name


# What the engine does around the chain.


def answer_of(engine: Engine, request: GenerationRequest) -> tuple[list[int], FinishEvent]:
    *events, last = engine.submit(request)
    assert isinstance(last, FinishEvent)
    return [t for e in events if isinstance(e, TextEvent) for t in e.tokens], last


def test_the_end_is_held_back_by_min_tokens_and_by_ignore_eos(engine: Engine) -> None:
    push = SamplingOptions(temperature=0, logit_bias={END: 100.0})
    prompt = list(b"Hello")
    assert answer_of(engine, GenerationRequest(prompt, push))[0] == []
    tokens, last = answer_of(engine, GenerationRequest(prompt, push, min_tokens=7))
    assert (len(tokens), last.reason) == (7, "stop")
    tokens, last = answer_of(
        engine, GenerationRequest(prompt, push, ignore_eos=True, max_tokens=11)
    )
    assert (len(tokens), last.reason) == (11, "length")


def test_what_the_models_file_says_never_to_say_is_never_said(tmp_path: Path) -> None:
    key = "tokenizer.ggml.suppress_tokens"
    path = write_tiny_llama(tmp_path / "m.gguf", TinyLlama(metadata={key: [A, B]}))
    engine = Engine.load(path, EngineOptions(n_threads=1))
    assert engine.model.vocab.suppressed == [A, B]
    push = SamplingOptions(temperature=0, logit_bias={A: 90.0, B: 80.0, C: 70.0})
    tokens, _ = answer_of(engine, GenerationRequest(list(b"Hello"), push, max_tokens=4))
    assert tokens == [C] * 4
    engine.close()
