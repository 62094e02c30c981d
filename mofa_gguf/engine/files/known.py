"""What the checks in front of llama.cpp cover: architectures and kinds of vocabulary.

Their code in llama.cpp was read for what it asserts, and the fuzz campaign (tools/fuzz_gguf.py)
goes over them. What other ones assert, only a load tells (:mod:`mofa_gguf.engine.files.probe`).
"""

from __future__ import annotations

ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2", "bert", "mamba"})
TOKENIZERS = frozenset({"llama", "gpt2", "bert", "t5", "rwkv"})
EVERY_LAYER_ATTENDS = ARCHITECTURES - {"mamba"}
EVERY_LAYER_ROTATES = ARCHITECTURES - {"mamba", "gpt2", "bert"}
