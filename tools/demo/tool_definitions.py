"""Tool definitions in OpenAI's form, varied so that the model reads what is offered."""

# ruff: noqa: SIM905 -- lists of phrases read best as one text
from __future__ import annotations

import random
from typing import Any

from . import words
from .cases import CalculatorTool, ToolDefinition, WeatherTool

_WEATHER_NAMES = ("get_weather",) * 12 + (
    "weather",
    "get_current_weather",
    "weather_lookup",
    "fetch_weather",
    "current_weather",
)
_CITY_NAMES = ("city",) * 12 + ("location", "location", "place", "town")
_WEATHER_TEXTS = (
    "Get the weather|Get the current weather|Get the weather of a city|Current weather for a city|"
    "Look up the weather|Weather in a city|Returns the weather at a place|Tells the weather|"
    "Get the current weather in a given city|Fetch the weather report of a city|"
    "Get the weather for a city.|Get the current weather for a location|Weather service|"
    "The weather of a city, as JSON|What the weather is like in a city right now"
).split("|")
_CALCULATOR_NAMES = ("calculator",) * 12 + ("calculate", "calc", "evaluate", "compute", "math")
_EXPRESSION_NAMES = ("expression",) * 14 + ("expr", "formula", "input")
_CALCULATOR_TEXTS = (
    "Calculate an expression|Evaluate an arithmetic expression|A calculator|Simple calculator|"
    "Compute the value of an expression|Do arithmetic|Evaluates a mathematical expression|"
    "Calculate the value of an arithmetic expression.|Works out sums, differences and products|"
    "Evaluate a math expression and return the result|Exact arithmetic|Calculator for two numbers"
).split("|")

_OTHERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("send_email", "Send an email to somebody", ("to", "subject", "body")),
    ("search_web", "Search the web", ("query",)),
    ("search", "Search for documents", ("query", "limit")),
    ("get_time", "Get the current time", ("timezone",)),
    ("get_stock_price", "Look up the price of a stock", ("symbol",)),
    ("create_event", "Put an event into the calendar", ("title", "date")),
    ("set_alarm", "Set an alarm", ("time",)),
    ("play_music", "Play a song", ("song", "artist")),
    ("translate", "Translate a text", ("text", "language")),
    ("read_file", "Read a file", ("path",)),
    ("write_file", "Write a file", ("path", "content")),
    ("run_command", "Run a shell command", ("command",)),
    ("get_news", "Get the latest news", ("topic",)),
    ("book_flight", "Book a flight between two cities", ("origin", "destination", "date")),
    ("find_restaurant", "Find a restaurant in a city", ("city", "food")),
    ("convert_currency", "Convert an amount of money", ("amount", "source", "target")),
    ("turn_on_light", "Turn on a light", ("room",)),
    ("add_note", "Write down a note", ("text",)),
    ("get_user", "Look up a user", ("user_id",)),
    ("query_database", "Run a database query", ("sql",)),
)


def define(name: str, description: str, parameters: dict[str, dict[str, Any]]) -> ToolDefinition:
    """A function tool in OpenAI's form."""
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = {
        "type": "object",
        "properties": parameters,
        "required": list(parameters)[:1],
    }
    return {"type": "function", "function": function}


def _description(rng: random.Random, choices: list[str]) -> str:
    text = rng.choice(choices)
    draw = rng.random()
    if draw < 0.06:
        return ""
    if draw < 0.16:
        return f"{text} {' '.join(rng.choice(words.WORDS) for _ in range(rng.randint(3, 10)))}."
    return text


def weather_tool(rng: random.Random) -> tuple[ToolDefinition, WeatherTool]:
    """A weather tool and how it is called."""
    unit = rng.choice(("unit", "unit", "units")) if rng.random() < 0.35 else ""
    shape = WeatherTool(rng.choice(_WEATHER_NAMES), rng.choice(_CITY_NAMES), unit)
    parameters: dict[str, dict[str, Any]] = {shape.city: {"type": "string"}}
    if unit:
        parameters[unit] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    return define(shape.name, _description(rng, _WEATHER_TEXTS), parameters), shape


def calculator_tool(rng: random.Random) -> tuple[ToolDefinition, CalculatorTool]:
    """A calculator tool and how it is called."""
    shape = CalculatorTool(rng.choice(_CALCULATOR_NAMES), rng.choice(_EXPRESSION_NAMES))
    parameters = {shape.expression: {"type": "string"}}
    return define(shape.name, _description(rng, _CALCULATOR_TEXTS), parameters), shape


def other_tools(rng: random.Random, n_tools: int) -> list[ToolDefinition]:
    """Tools that no question of the data needs."""
    picked = rng.sample(_OTHERS, n_tools)
    made = []
    for name, text, parameters in picked:
        if rng.random() < 0.25:
            name = f"{words.invented_word(rng)}_{rng.choice(words.WORDS)}"
            text = " ".join(rng.choice(words.WORDS) for _ in range(rng.randint(2, 8))).capitalize()
            parameters = tuple(words.invented_word(rng) for _ in range(rng.randint(0, 3)))
        made.append(define(name, text, {p: {"type": "string"} for p in parameters}))
    return made
