"""What OpenAI's own service is told, and what becomes of it where the model is local.

A key of a request that changes nothing here is let through, one that would change the answer is
refused: nobody waits for audio that never comes. The keys are those of
https://platform.openai.com/docs/api-reference/chat/create that are no parameters of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mofa_gguf.contract import ConfigError

Tier = Literal["auto", "default", "scale", "flex", "fast", "priority"]
TIER_PRIORITIES: dict[Tier, int] = {
    "auto": 0,
    "default": 0,
    "scale": 0,
    "flex": -10,
    "fast": 10,
    "priority": 10,
}
"""What OpenAI's service tiers are in a local queue."""


@dataclass(frozen=True)
class _Key:
    """``refusal`` says why the values that are not harmless are refused, and what to do."""

    harmless: Callable[[Any], bool]
    refusal: str = ""


def _any(value: Any) -> bool:
    return True


def _one_of(*values: Any) -> Callable[[Any], bool]:
    # True is 1 and False is 0 to Python, not to who wrote them.
    return lambda value: any(type(value) is type(one) and value == one for one in values)


_LABEL = _Key(_any)
_SEND_TOOLS = "is the form that tools had once; send tools and tool_choice"

_KEYS: Mapping[str, _Key] = {
    # Notes about a request, which is answered the same with and without them.
    "metadata": _LABEL,
    "safety_identifier": _LABEL,
    "session_id": _LABEL,
    # The usage always comes; how a stream is written is not the model's business.
    "stream_options": _LABEL,
    # Wishes about speed: prefixes are cached anyhow, and guessing ahead does not change a text.
    "prompt_cache_key": _LABEL,
    "prompt_cache_options": _LABEL,
    "prompt_cache_retention": _LABEL,
    "prediction": _LABEL,
    "store": _Key(
        _one_of(False), "asks for an answer to be kept, and none is; leave it out and keep yours"
    ),
    "modalities": _Key(
        _one_of(["text"], []), "asks for more than text, and text is all there is; send ['text']"
    ),
    "audio": _Key(_one_of(), "asks for speech, and a local model answers in text; leave it out"),
    "web_search_options": _Key(
        _one_of(), "asks for a search, and nothing here searches the web; offer a tool that does"
    ),
    "moderation": _Key(
        _one_of(),
        "asks for moderation, and nothing here moderates; leave it out and check yourself",
    ),
    "functions": _Key(_one_of([]), _SEND_TOOLS),
    "function_call": _Key(_one_of("none", "auto"), _SEND_TOOLS),
}


def without_hosted(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are left for a local model; a null says the same as nothing.

    Raises ConfigError for one that only the hosted service could obey.
    """
    left: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        key = _KEYS.get(name)
        if key is None:
            left[name] = value
        elif not key.harmless(value):
            raise ConfigError(f"{name} = {_shown(value)} {key.refusal}", field=name)
    return left


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
