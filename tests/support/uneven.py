"""A provider whose answers do not come in the order of the questions."""

from __future__ import annotations

import asyncio

from mofa_gguf.contract import ChatCompletionRequest, ChatCompletionResponse
from mofa_gguf.host.testing import ScriptedProvider


class Uneven(ScriptedProvider):
    """Takes longer for the first requests than for the last, and counts how many it works on."""

    at_once = most_at_once = 0

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.02 / (1 + len(self.requests)))
        try:
            return await super().chat(request)
        finally:
            self.at_once -= 1
