"""The two commands: ``mofa-gguf-agent`` and ``mofa-gguf-provider``, run by dora as nodes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofa_gguf.contract import ConfigError, LLMError, LLMProvider
from mofa_gguf.host import AsyncLLMClient, LLMRetryPolicy
from mofa_gguf_node.agent import RESPONSE, Agent
from mofa_gguf_node.ports import App, Outgoing, Send
from mofa_gguf_node.remote import RemoteProvider
from mofa_gguf_node.runtime import MakeApp, Ports, run
from mofa_gguf_node.service import ProviderService
from mofa_gguf_node.settings import AgentSettings, is_dataflow_end
from mofa_gguf_node.status import StatusLine
from mofa_gguf_node.tools import load_tools

REQUEST = "request"


def agent() -> None:
    """An agent; with an input ``response`` it asks a provider node, else a model of its own."""
    _run(make_agent)


def provider() -> None:
    """A provider node: one model for all agents."""
    _run(make_service)


def make_agent(ports: Ports, send: Send) -> App:
    """The agent that the environment describes.

    Raises:
        LLMError: an option is wrong.
    """
    settings = AgentSettings.from_environment()
    tools = load_tools(settings.tools, Path.cwd())
    retry = LLMRetryPolicy.with_max_attempts(settings.retries + 1) if settings.retries else None
    return Agent(
        AsyncLLMClient(_provider_of(ports, send, settings), retry=retry),
        settings,
        send=send,
        outputs=ports.outputs,
        inputs=ports.inputs,
        tools=tools,
        is_end=is_dataflow_end(),
    )


def make_service(ports: Ports, send: Send) -> App:
    """The provider node that the environment describes.

    Raises:
        LLMError: an option is wrong.
    """
    from mofa_gguf_node.providers import provider_from_environment

    return ProviderService(provider_from_environment(), send, ports.outputs)


def _provider_of(ports: Ports, send: Send, settings: AgentSettings) -> LLMProvider:
    if (RESPONSE in ports.inputs) != (REQUEST in ports.outputs):
        raise ConfigError(
            f"an agent of a provider node has both an input {RESPONSE} and an output {REQUEST}; "
            "one of them is missing in the dataflow",
            field="inputs",
        )
    if RESPONSE not in ports.inputs:
        from mofa_gguf_node.providers import provider_from_environment

        return provider_from_environment()

    def ask(text: str, metadata: Mapping[str, Any]) -> None:
        send(Outgoing(REQUEST, text, metadata))

    return RemoteProvider(ask, timeout_s=settings.timeout_s)


def _run(make_app: MakeApp) -> None:
    """Run a node; wrong options are told to its ``status`` output and end it."""
    logging.basicConfig(level=os.environ.get("MOFA_LOG_LEVEL", "WARNING").upper())
    logging.getLogger("mofa_gguf_node").setLevel(logging.INFO)

    def make(ports: Ports, send: Send) -> App:
        try:
            return make_app(ports, send)
        except LLMError as error:
            from mofa_gguf_node.failures import to_dict

            StatusLine(send, ports.outputs).say("error", **to_dict(error))
            raise

    try:
        run(make)
    except LLMError as error:
        sys.exit(f"error: {error}")
