"""Exchanges with tools: the call that is right, a result, and the answer taken from it."""

# ruff: noqa: SIM905 -- lists of phrases read best as one text
from __future__ import annotations

import json
import random
from dataclasses import dataclass

from . import words
from .cases import Check, Context, Exchange, assistant, call, plain, tool_result, user
from .phrasing import finish, lower_sometimes, wrap
from .skills import no_weather, sum_key, sum_question

WHICH_CITY = "Which city do you mean?"

_WEATHER = (
    "what is the weather in {c}|what's the weather in {c}|weather in {c}|how is the weather in {c}|"
    "what is the weather like in {c}|what's the weather like in {c}|{c} weather|weather {c}|"
    "tell me the weather in {c}|how's the weather in {c}|is it raining in {c}|is it cold in {c}|"
    "is it warm in {c}|how warm is it in {c}|how cold is it in {c}|weather for {c}|"
    "what is the temperature in {c}|temperature in {c}|show me the weather in {c}|"
    "check the weather in {c}|look up the weather for {c}|I need the weather in {c}|"
    "do I need an umbrella in {c}|is it sunny in {c}|give me the weather for {c}|"
    "can you check the weather in {c}|what's it like outside in {c}|get the weather for {c}|"
    "what is the current weather in {c}|I am in {c}, how is the weather|how hot is it in {c}|"
    "what's the weather in {c} today|what is the weather in {c} right now|weather report for {c}|"
    "will I need a coat in {c}|what's the forecast for {c}|how is the weather today in {c}"
).split("|")
_NEXT_CITY = (
    "and in {c}|and {c}|what about {c}|how about {c}|and for {c}|now {c}|and what about {c}|"
    "now in {c}|and the weather in {c}|also {c}|same for {c}"
).split("|")
_NO_CITY = (
    "what's the weather|what is the weather|how is the weather|how's the weather|is it raining|"
    "what's the weather like|tell me the weather|what is the weather like today|weather|"
    "is it cold|do I need an umbrella|how warm is it|what is the temperature|check the weather"
).split("|")
_JUST_CITY = (
    "{c}",
    "in {c}",
    "{c} please",
    "{c}, please",
    "I mean {c}",
    "for {c}",
    "the city is {c}",
)
_CONDITIONS = (
    "sunny|cloudy|rainy|snowy|windy|foggy|stormy|clear|overcast|partly cloudy|light rain|"
    "heavy rain|light snow|clear sky|drizzle|hail|thunderstorm|mist|scattered clouds|"
    "mostly sunny|mostly cloudy|showers|haze|dry|humid|hot|cold|mild|freezing rain|breezy"
).split("|")
_ERRORS = (
    "city not found|unknown city|service unavailable|timeout|no data|no such place|"
    "the service is down|network error|invalid request|not available"
).split("|")


@dataclass(frozen=True)
class Report:
    """A weather tool's result and the words that an answer must take from it."""

    text: str
    answer: str
    short: str
    values: tuple[str, ...]


def _city(rng: random.Random) -> str:
    name = rng.choice(words.CITIES) if rng.random() < 0.6 else words.invented_place(rng)
    return lower_sometimes(rng, name, share=0.12)


def _weather_result(rng: random.Random, city: str) -> Report:
    if rng.random() < 0.07:
        error = rng.choice(_ERRORS)
        text = rng.choice((json.dumps({"error": error}), f"Error: {error}"))
        return Report(text, f"The tool reported an error: {error}.", f"Error: {error}.", (error,))
    degrees = rng.randint(-20, 42) if rng.random() < 0.6 else rng.randint(0, 100)
    temperature = f"{degrees}.{rng.randint(1, 9)}" if rng.random() < 0.15 else str(degrees)
    condition = _condition(rng)
    draw = rng.random()
    if draw < 0.10:
        condition = ""
    elif draw < 0.16:
        temperature = ""
    told = ", ".join(p for p in (condition, f"{temperature} degrees" if temperature else "") if p)
    text = _weather_text(rng, city, temperature, condition)
    values = tuple(v for v in (condition, temperature) if v)
    short = f"{told[:1].upper()}{told[1:]}."
    return Report(text, f"The weather in {city}: {told}.", short, values)


def _condition(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.75:
        return rng.choice(_CONDITIONS)
    return rng.choice(words.WORDS) if draw < 0.9 else words.invented_word(rng)


def _weather_text(rng: random.Random, city: str, temperature: str, condition: str) -> str:
    """The result as a tool would write it: mostly JSON, sometimes a plain sentence."""
    if rng.random() < 0.2:
        return _weather_sentence(rng, city, temperature, condition)
    fields: list[tuple[str, object]] = []
    if rng.random() < 0.75:
        fields.append((rng.choice(("city", "city", "location", "name")), city))
    if temperature:
        name = rng.choice(("temperature",) * 5 + ("temp", "temperature_c", "temp_c", "degrees"))
        number = float(temperature) if "." in temperature else int(temperature)
        fields.append((name, temperature if rng.random() < 0.06 else number))
    if condition:
        name = rng.choice(("condition",) * 3 + ("conditions", "weather", "sky", "description"))
        fields.append((name, condition))
    extras: list[tuple[str, object]] = [
        ("unit", rng.choice(("celsius", "fahrenheit", "C", "F"))),
        ("humidity", rng.randint(5, 99)),
        ("wind", rng.randint(0, 60)),
        ("wind_speed", rng.randint(0, 60)),
        ("ok", True),
    ]
    fields += [extra for extra in extras if rng.random() < 0.22]
    if rng.random() < 0.3:
        rng.shuffle(fields)
    compact = rng.random() < 0.12
    return json.dumps(dict(fields), ensure_ascii=False, separators=(",", ":") if compact else None)


def _weather_sentence(rng: random.Random, city: str, temperature: str, condition: str) -> str:
    forms: tuple[str, ...]
    if not condition:
        forms = ("{t} degrees", "{t}°C", "{t}", "It is {t} degrees in {c}.", "{c}: {t} degrees")
    elif not temperature:
        forms = ("{w}", "It is {w} in {c}.", "{c}: {w}", "{w} in {c}")
    else:
        forms = (
            "{w}, {t} degrees",
            "{t} degrees and {w}",
            "{t}°C, {w}",
            "{w}, {t}°C",
            "It is {w} in {c} with {t} degrees.",
            "{c}: {w}, {t}°C",
            "{w} {t}",
        )
    return rng.choice(forms).format(t=temperature, w=condition, c=city)


def _weather_question(rng: random.Random, city: str, form: str, unit: str) -> str:
    text = form.format(c=city)
    if unit:
        text += rng.choice((" in {u}", ", in {u} please", " (in {u})", ", {u}")).format(u=unit)
    if rng.random() < 0.15:
        text, _ = wrap(rng, text, plain_share=0.0)
    draw = rng.random()
    mark = "?" if draw < 0.6 else "" if draw < 0.85 else rng.choice((".", "!", " ?"))
    return finish(rng, text) if mark == "" else finish(rng, text + mark)


def weather(rng: random.Random, ctx: Context, *, follow_up: bool = False) -> Exchange:
    """A question about the weather of a city; a call and an answer if the tool is offered."""
    city = _city(rng)
    form = rng.choice(_NEXT_CITY if follow_up else _WEATHER)
    unit = ""
    if ctx.weather and ctx.weather.unit and rng.random() < 0.3:
        unit = rng.choice(("celsius", "fahrenheit"))
    asked = _weather_question(rng, city, form, unit)
    key = f"weather:{city.lower()}:{form}"
    if ctx.weather is None:
        return no_weather(rng, ctx, asked, key)
    return _weather_exchange(rng, ctx, asked, key, city, unit)


def _weather_exchange(
    rng: random.Random, ctx: Context, asked: str, key: str, city: str, unit: str
) -> Exchange:
    tool = ctx.weather
    assert tool is not None
    arguments = {tool.city: city} | ({tool.unit: unit} if unit else {})
    calls = ((tool.name, arguments),)
    report = _weather_result(rng, city)
    return Exchange(
        "weather tool",
        key,
        (
            user(asked),
            call(calls),
            tool_result(report.text),
            assistant(ctx.say(report.answer, report.short)),
        ),
        (Check("call", calls=calls), Check("result", report.values)),
    )


def which_city(rng: random.Random, ctx: Context) -> tuple[Exchange, Exchange]:
    """A weather question without a city: ask for it, then call."""
    asked = finish(rng, rng.choice(_NO_CITY), question=True)
    first = plain("several turns", "", asked, ctx.say(WHICH_CITY, WHICH_CITY))
    city, form = _city(rng), rng.choice(_JUST_CITY)
    told = finish(rng, form.format(c=city), question=False)
    return first, _weather_exchange(rng, ctx, told, f"weather:{city.lower()}:{form}", city, "")


def calculator(rng: random.Random, ctx: Context) -> Exchange:
    """A calculation when a calculator is offered: always a call, and the tool's own result."""
    tool = ctx.calculator
    assert tool is not None
    asked, expression, key = _calculation(rng)
    calls = ((tool.name, {tool.expression: expression}),)
    if rng.random() < 0.04:
        error = rng.choice(("division by zero", "invalid expression", "overflow", "timeout"))
        text = rng.choice((json.dumps({"error": error}), f"Error: {error}"))
        answer, short, value = f"The tool reported an error: {error}.", f"Error: {error}.", error
    else:
        value = _value(rng, expression)
        text = _calculator_text(rng, expression, value)
        answer, short = f"{expression} = {value}.", f"{value}."
    return Exchange(
        "calculator tool",
        key,
        (user(asked), call(calls), tool_result(text), assistant(ctx.say(answer, short))),
        (Check("call", calls=calls), Check("result", (value,))),
    )


def _number(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.35:
        return str(rng.randint(0, 50))
    if draw < 0.65:
        return str(rng.randint(0, 999))
    if draw < 0.92:
        return str(rng.randint(0, 99999))
    return f"{rng.randint(0, 99)}.{rng.randint(1, 99)}"


def _calculation(rng: random.Random) -> tuple[str, str, str]:
    """The question, the expression to call with, and the key of the combination."""
    op = rng.choice("++--**/")
    a, b = _number(rng), _number(rng)
    if rng.random() < 0.1:
        other, c = rng.choice("+-*/"), _number(rng)
        expression = f"{a} {op} {b} {other} {c}"
        if rng.random() < 0.3:
            expression = f"({a} {op} {b}) {other} {c}"
        form = rng.choice(("{e}", "what is {e}", "what's {e}", "calculate {e}", "compute {e}"))
        typed = expression.replace(" ", "") if rng.random() < 0.4 else expression
        return finish(rng, form.format(e=typed)), expression, f"long:{expression}"
    return sum_question(rng, op, a, b), f"{a} {op} {b}", sum_key(op, a, b)


def _value(rng: random.Random, expression: str) -> str:
    """A result; often deliberately not the true one, so that the model reads it from the tool."""
    if rng.random() < 0.5:
        draw = rng.random()
        number = rng.randint(-999, 9999) if draw < 0.7 else rng.randint(-99999, 9999999)
        return f"{number}.{rng.randint(1, 999)}" if rng.random() < 0.2 else str(number)
    left, op, right, *rest = expression.split(" ")
    if rest or "(" in expression:
        return str(rng.randint(-999, 99999))
    a, b = float(left), float(right)
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0.0}[op]
    return str(int(value)) if value == int(value) else str(round(value, rng.choice((1, 2, 3, 4))))


def _calculator_text(rng: random.Random, expression: str, value: str) -> str:
    draw = rng.random()
    if draw < 0.45:
        return value
    if draw < 0.52:
        return f"{expression} = {value}"
    raw = f'"{value}"' if rng.random() < 0.1 else value
    name = rng.choice(("result",) * 5 + ("value", "answer", "output"))
    if rng.random() < 0.25:
        return f'{{"expression": "{expression}", "{name}": {raw}}}'
    return f'{{"{name}": {raw}}}' if rng.random() < 0.85 else f'{{"{name}":{raw}}}'
