"""What a node says of its state: loading, ready or error."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from typing import Any

from mofa_gguf.contract import LLMError, LLMProvider, ProviderNotSupported
from mofa_gguf_node import failures
from mofa_gguf_node.ports import Outgoing, Send

log = logging.getLogger(__name__)

STATUS = "status"


class StatusLine:
    """Sends the state to the output ``status``, where the dataflow declares it."""

    def __init__(self, send: Send, outputs: Collection[str]) -> None:
        self._send = send
        self._wanted = STATUS in outputs

    def say(self, status: str, **details: Any) -> None:
        """Send one state with its details."""
        log.info("%s %s", status, details or "")
        if self._wanted:
            self._send(Outgoing(STATUS, json.dumps({"status": status, **details})))

    async def follow(self, provider: LLMProvider) -> None:
        """Say how the loading of a provider's model goes, from beginning to end."""
        self.say("loading", provider=provider.name())
        try:
            details = await _load(provider)
        except LLMError as error:
            self.say("error", **failures.to_dict(error))
        # A provider that breaks its promise must not leave everybody waiting for the state.
        except Exception as error:
            log.exception("the provider failed")
            self.say("error", error=type(error).__name__, message=str(error))
        else:
            self.say("ready", **details)


async def _load(provider: LLMProvider) -> dict[str, Any]:
    """Have the model loaded; its name and context where the provider tells them."""
    try:
        info = await provider.get_model_info("")
    except ProviderNotSupported:
        if not await provider.health_check():
            raise
        return {"model": provider.default_model()}
    return {"model": info.id, "context_window": info.context_window}
