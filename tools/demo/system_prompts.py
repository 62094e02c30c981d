"""System prompts: a persona, a style, the user's name, and sentences that change nothing."""

# ruff: noqa: E501, SIM905 -- lists of phrases read best as one text
from __future__ import annotations

import random
from dataclasses import replace

from . import words
from .cases import Context

_PERSONA = (
    "Your name is {n}.|You are {n}.|You are {n}, a helpful assistant.|You are called {n}.|"
    "You are an assistant called {n}.|You are an assistant named {n}.|Act as {n}.|"
    "You are {n}, a friendly assistant.|You are a helpful assistant named {n}.|"
    "Your name is {n}. You help people.|You are the agent {n}.|You are {n}, an agent of MoFA."
).split("|")
_BRIEF = (
    "Answer briefly.|Be brief.|Answer in one word.|Keep your answers short.|Use few words.|"
    "Answer as shortly as you can.|Give short answers.|Reply briefly.|Be concise.|"
    "Answer with as few words as possible.|Reply in one word.|Always answer briefly.|Short answers only."
).split("|")
_OPENING = (
    'Begin every answer with "{o}"|Start every answer with "{o}"|Always begin with "{o}"|'
    'Start each reply with "{o}"|Begin each answer with "{o}"|Every answer starts with "{o}"'
).split("|")
_USER = (
    "The user's name is {n}.|You are talking to {n}.|The name of the user is {n}.|"
    "The user is called {n}.|You talk to {n}.|The user is {n}."
).split("|")
_FILLERS = (
    "You are a helpful assistant.|You are a friendly assistant.|Be polite.|Help the user.|"
    "You are an assistant.|Answer the questions of the user.|You are a helpful agent.|Be kind.|"
    "You are an agent in MoFA.|Use the tools if you need them.|Be helpful and honest.|"
    "You are a helpful AI assistant.|You can use tools.|Please help.|You answer questions.|"
    "You are a local model.|Do your best.|Use a tool when it helps."
).split("|")
_OPENERS = ("Ahoy!", "Sure!", "Of course!", "Well,", "Hey!", "Yes:", "Answer:", "Aye!", "Look:")


def persona_name(rng: random.Random) -> str:
    """A name for the assistant: from the list, or invented."""
    return (
        rng.choice(words.PERSONAS) if rng.random() < 0.6 else words.invented_word(rng).capitalize()
    )


def person_name(rng: random.Random) -> str:
    """A name for the user: from the list, or invented."""
    return rng.choice(words.NAMES) if rng.random() < 0.65 else words.invented_word(rng).capitalize()


def _opening(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(_OPENERS)
    word = rng.choice(words.WORDS) if rng.random() < 0.5 else words.invented_word(rng)
    return word.capitalize() + rng.choice(("!", ":", ",", "."))


def system_prompt(rng: random.Random, ctx: Context, *, demand: str = "") -> tuple[str, Context]:
    """A system prompt and the context that follows from it.

    ``demand`` names a part that must be there: "persona", "brief", "opening" or "user".
    """
    parts: list[str] = []
    if demand == "persona" or (not demand and rng.random() < 0.4):
        name = persona_name(rng)
        parts.append(rng.choice(_PERSONA).format(n=name))
        ctx = replace(ctx, name=name)
    if demand == "brief" or (not demand and rng.random() < 0.2):
        parts.append(rng.choice(_BRIEF))
        ctx = replace(ctx, brief=True)
    elif demand == "opening" or (not demand and rng.random() < 0.12):
        opening = _opening(rng)
        parts.append(rng.choice(_OPENING).format(o=opening))
        ctx = replace(ctx, opening=opening)
    if demand == "user" or (not demand and rng.random() < 0.25):
        user_name = person_name(rng)
        parts.append(rng.choice(_USER).format(n=user_name))
        ctx = replace(ctx, user_name=user_name)
    if not parts or rng.random() < 0.35:
        parts.insert(rng.randint(0, len(parts)), rng.choice(_FILLERS))
    return " ".join(parts), ctx
