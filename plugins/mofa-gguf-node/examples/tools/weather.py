"""A tool: the model is told of it by its type hints and docstring."""

from __future__ import annotations


def get_weather(city: str) -> dict[str, object]:
    """Get the current weather of a city."""
    print(f"tool: get_weather({city!r})")
    return {"city": city, "temperature": 21, "condition": "sunny"}
