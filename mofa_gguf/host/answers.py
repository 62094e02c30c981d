"""The text of a response, where there must be one."""

from __future__ import annotations

from mofa_gguf.contract.errors import Other
from mofa_gguf.contract.responses import ChatCompletionResponse


def text_of(response: ChatCompletionResponse) -> str:
    """The first choice's text.

    Raises:
        Other: it has none; the sentence says what came instead.
    """
    text = response.content()
    if text is not None:
        return text
    calls = response.tool_calls() or []
    reason = f": the model calls {', '.join(call.function.name for call in calls)}" if calls else ""
    raise Other(f"No content in response{reason}; use chat to see all of it")
