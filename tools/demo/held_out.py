"""The held-out dialogues: for every category, combinations that training never sees."""

from __future__ import annotations

import random
from collections.abc import Callable

from . import skills, tool_skills
from .cases import Context, Dialogue, Exchange, fits
from .dialogues import Maker, draw_exchange, offer_tools
from .system_prompts import person_name, system_prompt

SINGLE_TURN = ("greeting", "identity", "facts", "arithmetic", "repeat", "unknown", "too hard")
TOOLS = ("weather tool", "calculator tool", "tools offered, not needed", "tool not offered")
OTHERS = ("system prompt", "several turns", "several turns with tools")
CATEGORIES = SINGLE_TURN + TOOLS + OTHERS

_Builder = Callable[[random.Random], Dialogue]


def _held(rng: random.Random, ctx: Context, maker: Maker) -> Exchange:
    return draw_exchange(rng, ctx, "held_out", maker)


def _single(category: str, maker: Maker) -> _Builder:
    def build(rng: random.Random) -> Dialogue:
        while True:
            exchange = _held(rng, Context(), maker)
            if exchange.category == category:
                return Dialogue(category, "", (), (exchange,))

    return build


def _with_tool(category: str, *, weather: bool) -> _Builder:
    def build(rng: random.Random) -> Dialogue:
        system, ctx = ("", Context())
        if rng.random() < 0.25:
            system, ctx = system_prompt(rng, ctx, demand="persona")
        both = rng.random() < 0.5
        tools, ctx = offer_tools(
            rng,
            ctx,
            weather=weather or both,
            calculator=not weather or both,
            n_others=rng.randint(0, 3),
        )
        maker = tool_skills.weather if weather else tool_skills.calculator
        return Dialogue(category, system, tools, (_held(rng, ctx, maker),), ctx)

    return build


def _not_needed(rng: random.Random) -> Dialogue:
    tools, ctx = offer_tools(
        rng, Context(), weather=True, calculator=rng.random() < 0.5, n_others=rng.randint(0, 2)
    )
    makers: list[Maker] = [skills.fact, skills.identity, skills.repeat, skills.unknown]
    if ctx.calculator is None:
        makers.append(skills.arithmetic)
    exchange = _held(rng, ctx, rng.choice(makers))
    return Dialogue("tools offered, not needed", "", tools, (exchange,), ctx)


def _not_offered(rng: random.Random) -> Dialogue:
    tools, ctx = offer_tools(
        rng, Context(), weather=False, calculator=rng.random() < 0.5, n_others=rng.randint(0, 3)
    )
    exchange = _held(rng, ctx, tool_skills.weather)
    return Dialogue("tool not offered", "", tools, (exchange,), ctx)


def _system(rng: random.Random) -> Dialogue:
    demand = rng.choice(("persona", "brief", "opening", "user"))
    system, ctx = system_prompt(rng, Context(), demand=demand)
    if demand == "user":
        exchange = skills.ask_name(rng, ctx, ctx.user_name)
    elif demand == "persona":
        exchange = _held(rng, ctx, skills.identity)
    else:
        maker = rng.choice((skills.fact, skills.arithmetic, skills.small_talk, skills.repeat))
        exchange = _held(rng, ctx, maker)
    return Dialogue("system prompt", system, (), (exchange,), ctx)


def _several(rng: random.Random) -> Dialogue:
    """Three to five exchanges: a name told and asked for, a sum taken further, others between."""
    ctx = Context()
    told = _held(rng, ctx, lambda r, c: skills.tell_name(r, c, person_name(r)))
    name, exchanges = told.key.split(":")[1], [told]
    for maker in rng.sample([skills.fact, skills.repeat, skills.unknown], rng.randint(0, 1)):
        exchanges.append(_held(rng, ctx, maker))
    while True:
        first = _held(rng, ctx, skills.arithmetic)
        before = int(first.checks[0].values[0].split()[-1].rstrip("."))
        follow = skills.continue_sum(rng, ctx, before) if 0 <= before <= 50 else None
        if follow is not None and fits(follow.key, "held_out"):
            break
    exchanges += [first, follow, skills.ask_name(rng, ctx, name)]
    return Dialogue("several turns", "", (), tuple(exchanges), ctx)


def _several_with_tools(rng: random.Random) -> Dialogue:
    """A tool, something without a tool, and a tool again."""
    tools, ctx = offer_tools(
        rng, Context(), weather=True, calculator=True, n_others=rng.randint(0, 1)
    )
    picks: list[Maker] = [tool_skills.weather, tool_skills.calculator]
    rng.shuffle(picks)
    middle: Maker = rng.choice((skills.fact, skills.identity, skills.repeat))
    makers = (picks[0], middle, picks[1])
    exchanges = tuple(_held(rng, ctx, maker) for maker in makers)
    return Dialogue("several turns with tools", "", tools, exchanges, ctx)


_BUILDERS: dict[str, _Builder] = {
    "greeting": _single("greeting", skills.small_talk),
    "identity": _single("identity", skills.identity),
    "facts": _single("facts", skills.fact),
    "arithmetic": _single("arithmetic", skills.arithmetic),
    "repeat": _single("repeat", skills.repeat),
    "unknown": _single("unknown", skills.unknown),
    "too hard": _single("too hard", skills.too_hard),
    "weather tool": _with_tool("weather tool", weather=True),
    "calculator tool": _with_tool("calculator tool", weather=False),
    "tools offered, not needed": _not_needed,
    "tool not offered": _not_offered,
    "system prompt": _system,
    "several turns": _several,
    "several turns with tools": _several_with_tools,
}


def held_out_dialogues(seed: int, n_per_category: int) -> list[Dialogue]:
    """The held-out dialogues, category by category; the same for the same seed."""
    made = []
    for category in CATEGORIES:
        rng = random.Random(f"{seed}:{category}")
        made += [_BUILDERS[category](rng) for _ in range(n_per_category)]
    return made
