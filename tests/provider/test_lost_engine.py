"""The engine's thread ends by a bug: what runs fails, the next request loads the model anew."""

from __future__ import annotations

import threading

import pytest

from mofa_gguf import ChatCompletionRequest, GGUFProvider, Other


async def test_a_model_whose_engine_ended_is_loaded_anew(
    provider: GGUFProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ChatCompletionRequest.new().user_message("Hello").with_temperature(0).with_max_tokens(8)
    expected = (await provider.chat(ask)).content()
    loaded = provider._pool.get(provider.default_model())
    assert loaded is not None
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def broken() -> None:
        raise AssertionError("the books are wrong")

    monkeypatch.setattr(loaded.engine._loop, "_count", broken)
    with pytest.raises(Other, match="closed"):
        await provider.chat(ask.with_max_tokens(400))
    assert loaded.engine.closed
    assert (await provider.chat(ask)).content() == expected
    assert await provider.health_check()
