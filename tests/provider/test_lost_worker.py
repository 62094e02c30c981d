"""A worker with layers of the model goes away: what runs fails, the next request is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_gguf import ApiError, ChatCompletionRequest, GGUFConfig, GGUFProvider


class FakeGuard:
    """Stands before a worker that is there for the first step, and gone at the second."""

    server = "elsewhere:50052"

    def __init__(self) -> None:
        self._n_asked = 0

    @property
    def lost(self) -> bool:
        self._n_asked += 1
        return self._n_asked > 2  # once before the first step

    def look(self) -> bool:
        return self._n_asked > 2


async def test_what_runs_fails_and_the_next_request_loads_the_model_anew(
    tiny_chat_model: Path,
) -> None:
    config = GGUFConfig(model=str(tiny_chat_model), name="tiny", n_threads=1)
    ask = ChatCompletionRequest.new().user_message("Hello").with_temperature(0)
    async with GGUFProvider(config) as provider:
        expected = (await provider.chat(ask.with_max_tokens(8))).content()
        loaded = provider._pool.get("tiny")
        assert loaded is not None
        loaded.engine.model._guards = (FakeGuard(),)  # type: ignore[assignment]
        with pytest.raises(ApiError, match="elsewhere:50052 was lost"):
            await provider.chat(ask.with_max_tokens(400))
        assert (await provider.chat(ask.with_max_tokens(8))).content() == expected
        again = provider._pool.get("tiny")
        assert again is not loaded
        assert loaded.engine.closed
