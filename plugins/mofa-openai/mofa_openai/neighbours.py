"""The servers that speak OpenAI's API, each with where it usually is: a provider kind a row.

Where a configuration is silent, the environment is asked: the variables are those that MoFA and
the servers' own clients read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Neighbour:
    """A provider kind.

    ``base_url`` is where the server is unless somebody says otherwise, None where that must be
    said. With ``adds_v1``, an address without a path gets ``/v1``.
    """

    kind: str
    description: str
    aliases: tuple[str, ...] = ()
    base_url: str | None = None
    needs_key: bool = False
    adds_v1: bool = True
    key_variable: str | None = None
    url_variable: str | None = None
    model_variable: str | None = None


NEIGHBOURS = {
    neighbour.kind: neighbour
    for neighbour in (
        Neighbour(
            "openai",
            "OpenAI's API",
            base_url="https://api.openai.com/v1",
            needs_key=True,
            adds_v1=False,
            key_variable="OPENAI_API_KEY",
            url_variable="OPENAI_BASE_URL",
            model_variable="OPENAI_MODEL",
        ),
        Neighbour(
            "openai-compatible",
            "any server that speaks OpenAI's API, at base_url",
            aliases=("compatible", "local"),
            adds_v1=False,
        ),
        Neighbour(
            "ollama",
            "an Ollama server, on this machine unless base_url says otherwise",
            base_url="http://localhost:11434/v1",
            url_variable="OLLAMA_BASE_URL",
            model_variable="OLLAMA_MODEL",
        ),
        Neighbour(
            "lmstudio",
            "an LM Studio server, on this machine unless base_url says otherwise",
            aliases=("lm-studio",),
            base_url="http://localhost:1234/v1",
        ),
        Neighbour(
            "vllm",
            "a vLLM server, on this machine unless base_url says otherwise",
            base_url="http://localhost:8000/v1",
        ),
        Neighbour(
            "llama-server",
            "llama.cpp's server, on this machine unless base_url says otherwise",
            aliases=("llamacpp-server",),
            base_url="http://localhost:8080/v1",
        ),
    )
}
"""Every kind, by name."""


def neighbour_of(name: str) -> Neighbour:
    """The row of a kind or alias; the plain one for a name that somebody else registered."""
    for neighbour in NEIGHBOURS.values():
        if name == neighbour.kind or name in neighbour.aliases:
            return neighbour
    return NEIGHBOURS["openai-compatible"]
