"""Greedy answers of the torch model, as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from .answers import parse_answer
from .cases import Message, ToolDefinition
from .template import END_OF_TEXT, TURN_END, render

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from .model import Cache, DemoModel


class TorchGenerator:
    """Greedy decoding with a key-value cache."""

    def __init__(self, model: DemoModel, tokenizer: Tokenizer, max_new_tokens: int = 96) -> None:
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.ends = {tokenizer.token_to_id(t) for t in (TURN_END, END_OF_TEXT)}

    @torch.no_grad()
    def complete(self, prompt: str) -> str:
        """The text that follows a prompt, without the token that ends it."""
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        step = torch.tensor([ids])
        cache: Cache | None = None
        made: list[int] = []
        room = min(self.max_new_tokens, self.model.shape.max_position_embeddings - len(ids))
        for _ in range(room):
            hidden, cache = self.model.hidden(step, cache)
            token = int(self.model.logits(hidden[:, -1]).argmax())
            if token in self.ends:
                break
            made.append(token)
            step = torch.tensor([[token]])
        text: str = self.tokenizer.decode(made, skip_special_tokens=False)
        return text

    def generate(self, messages: Sequence[Message], tools: Sequence[ToolDefinition]) -> Message:
        """The next assistant message of a conversation."""
        prompt = render(list(messages), list(tools), add_generation_prompt=True)
        return parse_answer(self.complete(prompt))
