"""GGUFProvider: MoFA's contract on one side, the chat and engine rooms on the other."""

from mofa_gguf.provider.gguf import GGUFProvider

__all__ = ["GGUFProvider"]
