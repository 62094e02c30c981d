"""Answers in stages: reasoning, free text, calls under a grammar, a form for all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gguf
import numpy as np
import pytest

from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.structure.answer_plan import AnswerPlan, Reasoning, Trigger
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from mofa_gguf.engine.structure.staged import StagedConstraint
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.support.tiny_vocab import write_word_vocab

# Words that hold the end of a mark and more.
WORDS = (
    "<call",
    ">{",
    ">\n",
    ">\n{",
    '{"a"',
    "</th",
    "ink>",
    "ink>\n\n{",
    "ink>7",
    "it's ",
    "▁the",
)
EOS, THINK, END_THINK = 2, 3, 4
THINKING = Reasoning(b"<think>", b"</think>", closing=(END_THINK,))


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    specials = [(mark, gguf.TokenType.USER_DEFINED) for mark in ("<think>", "</think>")]
    path = write_word_vocab(tmp_path_factory.mktemp("vocab") / "tiny.gguf", WORDS, specials)
    with VocabFile(path) as file:
        yield file.vocab


@pytest.fixture(scope="module")
def factory(vocab: Vocab) -> ConstraintFactory:
    return ConstraintFactory(vocab, eos=EOS)


def word(text: str) -> int:
    return 5 + 256 + WORDS.index(text)


def letters(text: str) -> list[int]:
    return [5 + byte for byte in text.encode()]


def allowed(constraint: StagedConstraint, vocab: Vocab) -> set[bytes]:
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    constraint.mask(logits)
    return {vocab.piece(int(n), special=True) for n in np.flatnonzero(np.isfinite(logits))}


class Answer:
    """What becomes of the tokens that a model chooses."""

    def __init__(self, plan: AnswerPlan, factory: ConstraintFactory, vocab: Vocab) -> None:
        self.constraint = StagedConstraint(plan, factory, eos=[EOS])
        self._vocab = vocab
        self.text = b""

    def choose(self, tokens: Sequence[int]) -> Answer:
        for token in tokens:
            for each in self.constraint.fitted(token):
                self.constraint.accept(each)
                self.text += self._vocab.piece(each, special=True)
        return self


def call(factory: ConstraintFactory, grammar: str = 'start: "\\n{" /[0-9]{1,3}/ "}"') -> Trigger:
    return Trigger(b"<call>", lambda: factory.lark(grammar))


def test_free_text_stays_free_until_a_call_begins(factory: ConstraintFactory, vocab: Vocab) -> None:
    answer = Answer(AnswerPlan(triggers=(call(factory),)), factory, vocab)
    answer.choose(letters("a <call is no call."))
    assert answer.constraint.stage == "free"
    assert len(allowed(answer.constraint, vocab)) == len({*WORDS}) + 256 + 5
    answer.choose([word("<call"), *letters(">")])
    assert answer.constraint.stage == "call"
    assert allowed(answer.constraint, vocab) == {b"\n"}
    assert not answer.constraint.may_stop


def test_after_a_call_the_answer_is_free_again(factory: ConstraintFactory, vocab: Vocab) -> None:
    answer = Answer(AnswerPlan(triggers=(call(factory),)), factory, vocab)
    for _ in range(2):
        answer.choose([*letters("so "), word("<call"), *letters(">\n{12}")])
        assert answer.constraint.stage == "free"
    assert answer.text == b"so <call>\n{12}" * 2
    assert answer.constraint.may_stop
    assert not answer.constraint.stopped


def test_an_answer_may_have_to_end_with_its_first_call(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    answer = Answer(AnswerPlan(triggers=(call(factory),), single=True), factory, vocab)
    answer.choose([word("<call"), *letters(">\n{1}")])
    assert answer.constraint.stopped


def test_a_call_that_could_go_on_does_so_only_if_the_model_wants_it(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    listed = call(factory, 'start: "[" /[0-9]/ ("," /[0-9]/)* "]" (";" /[0-9]/)?')
    plan = AnswerPlan(triggers=(listed,))
    ended = Answer(plan, factory, vocab).choose(letters("<call>[1,2]"))
    assert ended.constraint.may_stop
    assert ended.constraint.stage == "call"
    assert b"x" in allowed(ended.constraint, vocab)
    assert ended.constraint.forced() == []
    assert ended.choose(letters(" and")).constraint.stage == "free"
    gone_on = Answer(plan, factory, vocab).choose(letters("<call>[1,2];"))
    assert not gone_on.constraint.may_stop
    assert allowed(gone_on.constraint, vocab) == {b"%d" % n for n in range(10)}


@pytest.mark.parametrize(
    ("token", "becomes"), [(">{", b"<call>"), (">\n", b"<call>\n"), (">\n{", b"<call>\n{")]
)
def test_a_token_that_holds_a_marks_end_and_what_does_not_fit_is_cut(
    factory: ConstraintFactory, vocab: Vocab, token: str, becomes: bytes
) -> None:
    answer = Answer(AnswerPlan(triggers=(call(factory),)), factory, vocab)
    answer.choose([word("<call"), word(token)])
    assert answer.text == becomes
    assert answer.constraint.stage == "call"
    answer.choose(letters("\n{5}")[len(becomes) - len(b"<call>") :])
    assert answer.constraint.stage == "free"


def test_a_token_is_cut_right_behind_another_call_too(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    first = Trigger(b"@", lambda: factory.lark('start: "1" ("2" "3")?'))
    plan = AnswerPlan(triggers=(first, call(factory)))
    answer = Answer(plan, factory, vocab).choose([*letters("@1"), word("<call"), word(">{")])
    assert answer.text == b"@1<call>"
    assert answer.constraint.stage == "call"


def test_a_call_may_only_count_at_the_beginning(factory: ConstraintFactory, vocab: Vocab) -> None:
    bare = Trigger(rb'\{"a"', lambda: factory.lark('start: ":" /[0-9]/ "}"'), at_start=True)
    plan = AnswerPlan(triggers=(bare,), reasoning=(THINKING,))
    for begin in ("", "\n ", '<think>{ "a</think>\n'):
        answer = Answer(plan, factory, vocab).choose([*letters(begin), word('{"a"')])
        assert answer.constraint.stage == "call", begin
    later = Answer(plan, factory, vocab).choose([*letters("x"), word('{"a"')])
    assert later.constraint.stage == "free"


def test_marks_inside_reasoning_mean_nothing(factory: ConstraintFactory, vocab: Vocab) -> None:
    plan = AnswerPlan(triggers=(call(factory),), reasoning=(THINKING,))
    for begin in ([THINK], letters("<think>")):
        answer = Answer(plan, factory, vocab).choose([*begin, *letters("<call>...")])
        assert answer.constraint.stage == "reasoning"
        answer.choose([word("</th"), word("ink>"), *letters("<call>")])
        assert answer.constraint.stage == "call"
    elsewhere = Answer(plan, factory, vocab).choose(letters("x<think><call>"))
    assert elsewhere.constraint.stage == "call"


def form(factory: ConstraintFactory, *, reasoning: bool) -> AnswerPlan:
    number = 'start: "{" /[0-9]{1,3}/ "}"'
    return AnswerPlan(
        main=lambda: factory.lark(number),
        opening_main=lambda: factory.lark(f'{number} | "<think>" | <[{THINK}]>'),
        resumed_main=lambda: factory.lark(number.replace("start:", "start: /\\n{0,2}/")),
        reasoning=(THINKING,),
        opened=THINKING if reasoning else None,
    )


def test_reasoning_is_free_and_what_follows_has_the_form(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    answer = Answer(form(factory, reasoning=True), factory, vocab).choose(letters("hm {x}"))
    assert b"z" in allowed(answer.constraint, vocab)
    assert vocab.piece(EOS, special=True) not in allowed(answer.constraint, vocab)
    answer.choose([END_THINK])
    assert allowed(answer.constraint, vocab) == {b"\n", b"{"}
    assert answer.choose(letters("\n{1}")).constraint.stopped


@pytest.mark.parametrize(
    ("token", "becomes"), [("ink>\n\n{", b"a</think>\n\n{"), ("ink>7", b"a</think>")]
)
def test_a_token_that_ends_reasoning_and_goes_on_is_cut_where_it_must(
    factory: ConstraintFactory, vocab: Vocab, token: str, becomes: bytes
) -> None:
    answer = Answer(form(factory, reasoning=True), factory, vocab)
    answer.choose([*letters("a"), word("</th"), word(token)])
    assert answer.text == becomes
    assert answer.constraint.stage == "main"


def test_a_model_may_reason_by_itself_before_it_answers(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    plan = form(factory, reasoning=False)
    start = StagedConstraint(plan, factory, eos=[EOS])
    assert allowed(start, vocab) >= {b"{", b"<", b"<think>"}
    direct = Answer(plan, factory, vocab).choose(letters("{12}"))
    assert direct.constraint.stopped
    for begin in ([THINK], letters("<think>")):
        answer = Answer(plan, factory, vocab).choose([*begin, *letters("{x"), END_THINK])
        assert not answer.constraint.stopped
        assert answer.choose(letters("{1}")).constraint.stopped


@pytest.mark.parametrize("budget", [0, 1, 3])
def test_reasoning_is_closed_when_its_budget_is_used_up(
    factory: ConstraintFactory, vocab: Vocab, budget: int
) -> None:
    plan = AnswerPlan(reasoning=(THINKING,), opened=THINKING, budget=budget)
    answer = Answer(plan, factory, vocab).choose(letters("abc"[:budget]))
    assert answer.constraint.forced() == [END_THINK]
    assert not answer.constraint.may_stop
    assert allowed(answer.constraint, vocab) == {b"</think>"}
    answer.choose(answer.constraint.forced())
    assert answer.constraint.stage == "free"
    assert answer.constraint.forced() == []


def test_reasoning_that_ends_in_time_is_left_alone(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    plan = AnswerPlan(reasoning=(THINKING,), budget=3)
    answer = Answer(plan, factory, vocab).choose([THINK, *letters("ab"), END_THINK])
    assert answer.constraint.stage == "free"
    answer.choose(letters("and on and on"))
    assert answer.constraint.forced() == []


def test_a_token_that_the_form_does_not_allow_is_an_error(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    constraint = StagedConstraint(form(factory, reasoning=False), factory, eos=[EOS])
    with pytest.raises(ConstraintError):
        constraint.accept(letters("x")[0])


def test_bytes_are_spelled_with_the_longest_tokens(factory: ConstraintFactory) -> None:
    assert factory.spelled(b"<call>\n{x") == [word("<call"), word(">\n{"), *letters("x")]
    assert factory.spelled(b"") == []


def test_forced_tokens_are_never_ones_that_are_not_allowed(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    # The vocabulary has no token for a blank alone, and llama.cpp spells one as another character.
    assert "▁" not in {vocab.text(token) for token in range(vocab.n_tokens)}
    constraint = factory.lark('start: "a" " b" /[0-9]/')
    for _ in range(2):
        tokens = constraint.forced()
        assert constraint.fits(tokens)
        for token in tokens:
            constraint.accept(token)
