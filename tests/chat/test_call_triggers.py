"""Calls that begin in the middle of an answer: what begins one, and what may follow."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mofa_gguf.chat import AnswerForms
from mofa_gguf.engine.structure import grammars
from mofa_gguf.engine.structure.answer_plan import AnswerPlan, Trigger
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from mofa_gguf.engine.structure.staged import StagedConstraint
from mofa_gguf.engine.tokens.vocab import Vocab
from tests.chat.test_call_grammar import check_call
from tests.chat.test_calls_of_formats import rendered
from tests.support.call_families import FORMAT_OF, TOOLS, template, tool
from tests.support.tiny_vocab import EOS, MARKS

N_RUNS = 10


def triggers(
    factory: ConstraintFactory, forms: AnswerForms, tools: list[dict[str, Any]], **more: Any
) -> tuple[Trigger, ...]:
    return tuple(
        Trigger(each.pattern.encode(), factory.maker(grammars.lark(each.grammar)), each.at_start)
        for each in forms.triggers(tools, **more)
    )


class Answer:
    """An answer in the making, under a constraint."""

    def __init__(self, plan: AnswerPlan, factory: ConstraintFactory, vocab: Vocab) -> None:
        self.constraint = StagedConstraint(plan, factory, eos=[EOS])
        self.vocab = vocab
        self.tokens: list[int] = []

    def write(self, text: str, *, until: str = "") -> None:
        """The model writes a text, or what of it stands in front of the stage ``until``."""
        for token in self.vocab.tokenize(text, parse_special=True):
            if self.constraint.stage == until:
                return
            self.take(token)

    def take(self, token: int) -> None:
        for each in self.constraint.fitted(token):
            self.constraint.accept(each)
            self.tokens.append(each)

    def finish_call(self, rng: np.random.Generator) -> None:
        """What random logits give until the call may be over."""
        while self.constraint.stage == "call" and not self.constraint.may_stop:
            assert len(self.tokens) < 5000
            logits = rng.normal(size=self.vocab.n_tokens).astype(np.float32)
            self.constraint.mask(logits)
            token = int(logits.argmax())
            assert np.isfinite(logits[token])
            self.take(token)

    @property
    def text(self) -> str:
        pieces = (self.vocab.piece(token, special=True) for token in self.tokens)
        return b"".join(pieces).decode("utf-8")


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
def test_once_a_call_has_begun_it_becomes_a_valid_one(
    factory: ConstraintFactory, vocab: Vocab, name: str
) -> None:
    chat = template(name)
    prompt, written = rendered(name, [("clock", {})])
    plan = AnswerPlan(triggers=triggers(factory, chat.forms(prompt, tokens=MARKS), TOOLS))
    names = set()
    for seed in range(N_RUNS):
        answer = Answer(plan, factory, vocab)
        answer.write(written, until="call")
        assert answer.constraint.stage == "call", written
        answer.finish_call(np.random.default_rng(seed))
        message = chat.parse(answer.text, TOOLS, prompt)
        assert message.content is None, answer.text
        assert message.tool_calls
        for call in message.tool_calls:
            names.add(call.function.name)
            check_call(call.function.name, json.loads(call.function.arguments))
    if FORMAT_OF[name] not in ("functionary", "llama"):  # which begin with the tool's name
        assert names == {"get_weather", "clock"}


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
def test_ordinary_text_wakes_no_constraint(
    factory: ConstraintFactory, vocab: Vocab, name: str
) -> None:
    chat = template(name)
    forms = chat.forms(rendered(name, [("clock", {})])[0], tokens=MARKS)
    answer = Answer(AnswerPlan(triggers=triggers(factory, forms, TOOLS)), factory, vocab)
    text = 'It is 5 o\'clock: {"name": "Bo"}, functools, <b>f</b> [1] a@b.c, `<function>`.\n'
    answer.write(text)
    assert answer.constraint.stage == "free"
    assert answer.text == text
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    answer.constraint.mask(logits)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("name", ["chatml_with_tools", "qwen_coder_calls", "kimi_k2_calls"])
def test_text_and_a_second_call_may_follow_a_call(
    factory: ConstraintFactory, vocab: Vocab, name: str
) -> None:
    chat = template(name)
    prompt, written = rendered(name, [("clock", {})])
    plan = AnswerPlan(triggers=triggers(factory, chat.forms(prompt, tokens=MARKS), TOOLS))
    answer = Answer(plan, factory, vocab)
    for seed in (1, 2):
        answer.write("So.\n")
        answer.write(written, until="call")
        answer.finish_call(np.random.default_rng(seed))
    answer.write("\nDone.")
    message = chat.parse(answer.text, TOOLS, prompt)
    assert len(message.tool_calls or []) >= 2
    assert message.content == "So.\nSo.\nDone."


def test_blanks_in_a_bare_call_make_no_difference(factory: ConstraintFactory, vocab: Vocab) -> None:
    chat = template("json_calls")
    plan = AnswerPlan(triggers=triggers(factory, chat.forms("", tokens=MARKS), TOOLS))
    for text in ('{"name":"clock"', ' \n{"name":   "clock"'):
        answer = Answer(plan, factory, vocab)
        answer.write(text)
        assert answer.constraint.stage == "call"
    for text in ('{"name": "clocks"', 'So {"name": "clock"', '{"city": "clock"'):
        answer = Answer(plan, factory, vocab)
        answer.write(text)
        assert answer.constraint.stage == "free"


def test_a_tool_left_free_is_only_held_to_its_name(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    chat = template("qwen_coder_calls")
    odd = tool("odd", {"when": {"type": "string", "format": "date"}}, ["when"])
    prompt = chat.render([{"role": "user", "content": "?"}], [*TOOLS, odd])
    forms = chat.forms(prompt, tokens=MARKS)
    found = triggers(factory, forms, [*TOOLS, odd], free=["odd"])
    answer = Answer(AnswerPlan(triggers=found), factory, vocab)
    answer.write("<tool_call>\n<function=odd>\n<parameter=whenever>\nsoon")
    assert answer.constraint.stage == "free"
    strict = Answer(AnswerPlan(triggers=found), factory, vocab)
    strict.write("<tool_call>\n<function=clock>\n")
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    strict.constraint.mask(logits)
    allowed = [vocab.piece(int(n), special=True) for n in np.flatnonzero(np.isfinite(logits))]
    assert allowed == [b"<"]
