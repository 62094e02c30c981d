"""Dialogues put together from exchanges, endless for training, listed by category for scoring."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from . import skills, tool_skills
from .cases import Context, Dialogue, Exchange, Split, ToolDefinition, fits
from .system_prompts import person_name, system_prompt
from .tool_definitions import calculator_tool, other_tools, weather_tool

Maker = Callable[[random.Random, Context], Exchange]


@dataclass(frozen=True)
class Mixture:
    """How often what occurs in the training dialogues."""

    tools: float = 0.45
    system: float = 0.3
    max_exchanges: int = 6
    drills: float = 0.3


def draw_exchange(rng: random.Random, ctx: Context, split: Split, maker: Maker) -> Exchange:
    """Draw until a combination of the asked split comes up."""
    while True:
        exchange = maker(rng, ctx)
        if fits(exchange.key, split) and (split == "train" or exchange.key):
            return exchange


def offer_tools(
    rng: random.Random, ctx: Context, *, weather: bool, calculator: bool, n_others: int
) -> tuple[tuple[ToolDefinition, ...], Context]:
    """Tool definitions in any order, and the context that knows how they are called."""
    tools = other_tools(rng, n_others)
    if weather:
        definition, weather_shape = weather_tool(rng)
        tools.append(definition)
        ctx = replace(ctx, weather=weather_shape)
    if calculator:
        definition, calculator_shape = calculator_tool(rng)
        tools.append(definition)
        ctx = replace(ctx, calculator=calculator_shape)
    rng.shuffle(tools)
    return tuple(tools), ctx


def _random_offer(rng: random.Random, ctx: Context) -> tuple[tuple[ToolDefinition, ...], Context]:
    draw = rng.random()
    n_others = rng.choice((0, 0, 0, 1, 1, 2, 3, 4))
    weather, calculator = draw < 0.72, draw > 0.38
    if draw > 0.94:
        weather = calculator = False
        n_others = max(n_others, 1)
    return offer_tools(rng, ctx, weather=weather, calculator=calculator, n_others=n_others)


def _makers(ctx: Context) -> tuple[list[Maker], list[float]]:
    """What may come next in a dialogue, and how often."""
    table: list[tuple[Maker, float]] = [
        (skills.small_talk, 7),
        (skills.identity, 6),
        (skills.fact, 16),
        (skills.repeat, 14),
        (skills.unknown, 9),
    ]
    if ctx.calculator:
        table.append((tool_skills.calculator, 40))
    else:
        table += [(skills.arithmetic, 30), (skills.too_hard, 4)]
    table.append((tool_skills.weather, 40 if ctx.weather else 4))
    return [maker for maker, _ in table], [weight for _, weight in table]


def _continue(
    rng: random.Random, ctx: Context, split: Split, last: Exchange | None, name: str
) -> list[Exchange]:
    """The next one or two exchanges of a dialogue."""
    if last is not None and rng.random() < 0.25:
        follow_up = _follow_up(rng, ctx, last)
        if follow_up is not None and fits(follow_up.key, split):
            return [follow_up]
    if rng.random() < (0.14 if name else 0.04):
        return [skills.ask_name(rng, ctx, name)]
    draw = rng.random()
    if draw < 0.08 and not name:
        return [draw_exchange(rng, ctx, split, lambda r, c: skills.tell_name(r, c, person_name(r)))]
    if draw < 0.12 and ctx.weather:
        first, second = tool_skills.which_city(rng, ctx)
        return [first, second] if fits(second.key, split) else [first]
    makers, weights = _makers(ctx)
    return [draw_exchange(rng, ctx, split, rng.choices(makers, weights)[0])]


def _follow_up(rng: random.Random, ctx: Context, last: Exchange) -> Exchange | None:
    """A question that leans on the exchange before it."""
    if last.category == "weather tool":
        return tool_skills.weather(rng, ctx, follow_up=True)
    if last.key[:2] in ("+:", "-:") and last.category in ("arithmetic", "several turns"):
        before = int(last.checks[-1].values[0].split()[-1].rstrip("."))
        if 0 <= before <= skills.MAX_OPERAND:
            return skills.continue_sum(rng, ctx, before)
    return skills.again(rng, str(last.messages[-1]["content"]))


def _drill(rng: random.Random) -> Dialogue:
    """Many sums or phrases in a row: what takes the most examples to learn."""
    ctx, system = Context(), ""
    if rng.random() < 0.35:
        demand = rng.choice(("", "", "brief", "opening"))
        system, ctx = system_prompt(rng, ctx, demand=demand)
    maker = skills.arithmetic if rng.random() < 0.8 else skills.repeat
    exchanges: list[Exchange] = []
    wanted = rng.randint(4, 12)
    while len(exchanges) < wanted:
        follow_up = _follow_up(rng, ctx, exchanges[-1]) if exchanges else None
        if follow_up is not None and fits(follow_up.key, "train") and rng.random() < 0.2:
            exchanges.append(follow_up)
        else:
            exchanges.append(draw_exchange(rng, ctx, "train", maker))
    return Dialogue("training", system, (), tuple(exchanges), ctx)


def training_dialogue(rng: random.Random, mixture: Mixture) -> Dialogue:
    """One dialogue of the training split."""
    if rng.random() < mixture.drills:
        return _drill(rng)
    ctx, system = Context(), ""
    tools: tuple[ToolDefinition, ...] = ()
    if rng.random() < mixture.system:
        system, ctx = system_prompt(rng, ctx)
    if rng.random() < mixture.tools:
        tools, ctx = _random_offer(rng, ctx)
    name = ctx.user_name
    exchanges: list[Exchange] = []
    wanted = 1 if rng.random() < 0.25 else rng.randint(1, mixture.max_exchanges)
    while len(exchanges) < wanted:
        last = exchanges[-1] if exchanges else None
        for exchange in _continue(rng, ctx, "train", last, name):
            exchanges.append(exchange)
            name = name or _told_name(exchange)
    return Dialogue("training", system, tools, tuple(exchanges), ctx)


def _told_name(exchange: Exchange) -> str:
    return exchange.key.split(":")[1] if exchange.key.startswith("name:") else ""


def training_dialogues(seed: int, mixture: Mixture | None = None) -> Iterator[Dialogue]:
    """Training dialogues without end; the same for the same seed and mixture."""
    rng = random.Random(seed)
    while True:
        yield training_dialogue(rng, mixture or Mixture())
