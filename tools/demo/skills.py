"""What the model answers by itself: small talk, facts, sums, repeating, names, and not knowing."""

# ruff: noqa: SIM905 -- lists of phrases read best as one text
from __future__ import annotations

import random

from . import facts, words
from .cases import Check, Context, Exchange, assistant, plain, user
from .phrasing import finish, first_letter, lower_sometimes, slip, wrap

MAX_OPERAND = 50
"""Sums are answered without a tool up to this operand."""

TOO_HARD = "That is too hard for me without a calculator tool."
NO_WEATHER = "I cannot look up the weather without a weather tool."
NO_NAME = "You have not told me your name."

_SUMS = (
    "{a}+{b}|{a} + {b}|{a}+{b}=|{a} + {b} =|what's {a}+{b}|what is {a}+{b}|what's {a} + {b}|"
    "what is {a} + {b}|what is {a} plus {b}|what's {a} plus {b}|{a} plus {b}|add {a} and {b}|"
    "how much is {a} + {b}|how much is {a} plus {b}|calculate {a} + {b}|compute {a}+{b}|"
    "what is the sum of {a} and {b}|can you add {a} and {b}|solve {a} + {b}|{a} and {b} together|"
    "add {a} to {b}|tell me {a} + {b}|I need {a} plus {b}|how much do {a} and {b} make"
).split("|")
_DIFFERENCES = (
    "{a}-{b}|{a} - {b}|{a}-{b}=|{a} - {b} =|what's {a}-{b}|what is {a}-{b}|what's {a} - {b}|"
    "what is {a} - {b}|what is {a} minus {b}|what's {a} minus {b}|{a} minus {b}|"
    "subtract {b} from {a}|how much is {a} - {b}|how much is {a} minus {b}|calculate {a} - {b}|"
    "take {b} away from {a}|take {b} from {a}|solve {a} - {b}|{a} less {b}|compute {a}-{b}|"
    "tell me {a} - {b}|what is left of {a} without {b}"
).split("|")
_PRODUCTS = (
    "{a}*{b}|{a} * {b}|what is {a} times {b}|what's {a}*{b}|{a} times {b}|multiply {a} by {b}|"
    "what is {a} multiplied by {b}|what is {a} * {b}|how much is {a} times {b}|{a} x {b}|"
    "calculate {a} * {b}|what is the product of {a} and {b}|multiply {a} and {b}|compute {a}*{b}"
).split("|")
_QUOTIENTS = (
    "{a}/{b}|{a} / {b}|what is {a} divided by {b}|what's {a}/{b}|{a} divided by {b}|"
    "divide {a} by {b}|what is {a} / {b}|how much is {a} divided by {b}|calculate {a} / {b}|"
    "{a} over {b}|compute {a}/{b}"
).split("|")
QUESTIONS = {"+": _SUMS, "-": _DIFFERENCES, "*": _PRODUCTS, "/": _QUOTIENTS}

_REPEAT = (
    "repeat: {p}|repeat after me: {p}|say: {p}|please repeat: {p}|say this: {p}|echo: {p}|"
    "repeat this phrase: {p}|repeat this: {p}|can you say: {p}|please say: {p}|repeat {p}|say {p}|"
    'say "{p}"|repeat "{p}"|please say "{p}"|please repeat "{p}"|repeat the phrase "{p}"|echo {p}|'
    'can you repeat "{p}"?|can you say "{p}"?|say "{p}" please|repeat the words "{p}"|'
    "could you repeat this: {p}|now say: {p}|now repeat: {p}|just say {p}|write: {p}|write {p}"
).split("|")

_AGAIN = (
    "repeat that|say that again|again|once more|can you repeat that|please say that again|"
    "what did you say|come again|repeat your answer|repeat your last answer|one more time"
).split("|")

_MY_NAME = (
    "my name is {n}|I am {n}|I'm {n}|call me {n}|hi, my name is {n}|hello, I am {n}|hi, I'm {n}|"
    "hello, my name is {n}|you can call me {n}|this is {n}|{n} is my name|hey, I'm {n}|"
    "please call me {n}|people call me {n}|hello, I'm {n}"
).split("|")
_ASK_NAME = (
    "what is my name|what's my name|who am I|do you know my name|do you remember my name|"
    "can you tell me my name|tell me my name|say my name|what am I called|how am I called|"
    "do you know who I am|remember my name"
).split("|")

_NOT_UNKNOWN = frozenset("agent model token server plugin kernel hello world thank".split())
_FREE_WORDS = tuple(w for w in words.WORDS if w not in _NOT_UNKNOWN)
_SMALL_NUMBERS = "zero one two three four five six seven eight nine ten".split()


def known(rng: random.Random, ctx: Context, fact: facts.Fact, category: str) -> Exchange:
    """A question about a fact, in one of its phrasings."""
    question = rng.choice(fact.questions).replace("{name}", ctx.name.split()[-1])
    text, combination = wrap(rng, question)
    key = f"{fact.key}:{combination}" if combination else ""
    asked = slip(rng, lower_sometimes(rng, finish(rng, text)))
    answer = ctx.say(fact.answer.format(name=ctx.name), fact.short.format(name=_title(ctx.name)))
    return plain(category, key, asked, answer)


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def small_talk(rng: random.Random, ctx: Context) -> Exchange:
    """Greetings, thanks, goodbyes and the like."""
    weights = [6, 2, 2, 2, 1, 1, 1]
    fact = rng.choices(facts.SMALL_TALK, weights)[0]
    category = "greeting" if fact.key in ("hello", "how") else "small talk"
    return known(rng, ctx, fact, category)


def identity(rng: random.Random, ctx: Context) -> Exchange:
    """What the model is and can do."""
    return known(rng, ctx, rng.choices(facts.IDENTITY, [5, 2, 1, 1, 1, 1, 1])[0], "identity")


def fact(rng: random.Random, ctx: Context) -> Exchange:
    """A question about MoFA or this project."""
    weights = [4 if f.key in ("mofa", "project") else 1 for f in facts.PROJECT]
    return known(rng, ctx, rng.choices(facts.PROJECT, weights)[0], "facts")


def sum_key(op: str, a: int | str, b: int | str) -> str:
    """The held-out key of a calculation; a sum and its mirror image are the same one."""
    if op == "+" and str(b) < str(a):
        a, b = b, a
    return f"{op}:{a}:{b}"


def _operand(rng: random.Random) -> int:
    return rng.randint(0, 12) if rng.random() < 0.3 else rng.randint(0, MAX_OPERAND)


def sum_question(rng: random.Random, op: str, a: object, b: object) -> str:
    """A calculation in words or signs, with marks and capitals."""
    text = rng.choice(QUESTIONS[op]).format(a=a, b=b)
    if rng.random() < 0.12:
        text, _ = wrap(rng, text, plain_share=0.0)
    return finish(rng, text)


def calculate(op: str, a: int, b: int) -> int:
    """The value of a sum or a difference."""
    return a + b if op == "+" else a - b


def arithmetic(rng: random.Random, ctx: Context) -> Exchange:
    """A sum or difference of small numbers, answered without a tool."""
    op = rng.choice("+-")
    a, b = _operand(rng), _operand(rng)
    if op == "-" and a < b and rng.random() < 0.8:
        a, b = b, a
    if max(a, b) <= 10 and rng.random() < 0.08:
        asked = sum_question(rng, op, _SMALL_NUMBERS[a], _SMALL_NUMBERS[b])
    else:
        asked = sum_question(rng, op, a, b)
    return sum_exchange(ctx, "arithmetic", asked, op, a, b)


def sum_exchange(ctx: Context, category: str, asked: str, op: str, a: int, b: int) -> Exchange:
    """The exchange of a small calculation."""
    value = calculate(op, a, b)
    answer = ctx.say(f"{a} {op} {b} = {value}.", f"{value}.")
    return plain(category, sum_key(op, a, b), asked, answer)


def continue_sum(rng: random.Random, ctx: Context, before: int) -> Exchange:
    """A follow-up that takes the last result further."""
    op = "+" if before < 10 or (before < 40 and rng.random() < 0.5) else "-"
    b = rng.randint(0, 12)
    form = (
        "now add {b}|and plus {b}|plus {b}|add {b}|add {b} to that|add {b} more|and {b} more"
        if op == "+"
        else "now subtract {b}|and minus {b}|minus {b}|subtract {b}|take {b} from that|"
        "take away {b}|subtract {b} from that"
    )
    asked = finish(rng, rng.choice(form.split("|")).format(b=b))
    return sum_exchange(ctx, "several turns", asked, op, before, b)


def too_hard(rng: random.Random, ctx: Context) -> Exchange:
    """A calculation beyond the model, without a calculator: say so."""
    op = rng.choice("+-*/")
    low = 2 if op in "*/" else 100
    a, b = rng.randint(low, 9999 if rng.random() < 0.5 else 999), rng.randint(low, 999)
    if op in "*/" and rng.random() < 0.6:
        a, b = rng.randint(2, 60), rng.randint(2, 60)
    asked = sum_question(rng, op, a, b)
    return plain("too hard", sum_key(op, a, b), asked, ctx.say(TOO_HARD, "Too hard."))


def repeat(rng: random.Random, ctx: Context) -> Exchange:
    """Repeat a phrase exactly."""
    text = words.phrase(rng)
    asked = first_letter(rng, rng.choice(_REPEAT)).replace("{p}", text)
    return plain("repeat", f"repeat:{text.lower()}", asked, ctx.say(text))


def again(rng: random.Random, last_answer: str) -> Exchange:
    """Repeat the last answer; the answer is given as it stood."""
    return plain("several turns", "", finish(rng, rng.choice(_AGAIN)), last_answer)


def tell_name(rng: random.Random, ctx: Context, name: str) -> Exchange:
    """The user says what they are called."""
    form = rng.choice(_MY_NAME)
    asked = finish(rng, form.format(n=name), question=False)
    key = f"name:{name}:{form}"
    return plain(
        "several turns", key, asked, ctx.say(f"Nice to meet you, {name}!", f"Hello {name}!")
    )


def ask_name(rng: random.Random, ctx: Context, name: str) -> Exchange:
    """The user asks for their own name, told before or not."""
    asked = lower_sometimes(rng, finish(rng, rng.choice(_ASK_NAME)))
    answer = ctx.say(f"Your name is {name}.", f"{name}.") if name else ctx.say(NO_NAME, "Unknown.")
    return plain("several turns" if name else "unknown", "", asked, answer)


def unknown(rng: random.Random, ctx: Context) -> Exchange:
    """A question outside of the few facts: admit it."""
    text = _soup(rng) if rng.random() < 0.3 else _fill(rng, rng.choice(facts.UNKNOWN_QUESTIONS))
    asked = lower_sometimes(rng, finish(rng, wrap(rng, text, plain_share=0.8)[0]))
    answer = ctx.say(facts.UNKNOWN_ANSWER, facts.UNKNOWN_SHORT)
    return plain("unknown", f"unknown:{text.lower()}", asked, answer)


def _fill(rng: random.Random, form: str) -> str:
    while "{x}" in form:
        kind = rng.random()
        pick = (
            rng.choice(words.CITIES)
            if kind < 0.35
            else rng.choice(words.NAMES)
            if kind < 0.5
            else words.invented_place(rng)
        )
        form = form.replace("{x}", pick, 1)
    while "{w}" in form:
        pick = rng.choice(_FREE_WORDS) if rng.random() < 0.6 else words.invented_word(rng)
        form = form.replace("{w}", pick, 1)
    while "{n}" in form:
        form = form.replace("{n}", str(rng.randint(2, 2100)), 1)
    return form


def _soup(rng: random.Random) -> str:
    """A question of random words in a question's order, so that strange input is recognised."""
    start = rng.choice(
        "what who where when why how which is are do does can could would should will has".split()
    )
    body = [
        rng.choice(_FREE_WORDS) if rng.random() < 0.65 else words.invented_word(rng)
        for _ in range(rng.randint(2, 6))
    ]
    link = rng.choice(("is the", "do", "does the", "can a", "the", "my", "your", "are"))
    return f"{start} {link} {' '.join(body)}"


def no_weather(rng: random.Random, ctx: Context, question: str, key: str) -> Exchange:
    """A weather question when no weather tool is offered."""
    answer = ctx.say(NO_WEATHER, "Unknown.")
    return Exchange(
        "tool not offered",
        key,
        (user(question), assistant(answer)),
        (Check("text", (answer,)),),
    )
