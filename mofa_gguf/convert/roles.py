"""What a tensor does, as its GGUF name tells.

Behaviour: ``tensor_get_category`` in src/llama-quant.cpp of llama.cpp.
"""

from __future__ import annotations

import re
from enum import Enum, auto

TOKEN_EMBEDDINGS = frozenset(("token_embd.weight", "per_layer_token_embd.weight"))


class Role(Enum):
    """What a tensor does, as far as the choice of its type goes."""

    EMBEDDING = auto()
    OUTPUT = auto()
    ATTN_V = auto()
    ATTN_K = auto()
    ATTN_Q = auto()
    ATTN_OUTPUT = auto()
    FFN_UP = auto()
    FFN_GATE = auto()
    FFN_DOWN = auto()
    OTHER = auto()


# Parts of names, first match counts. A fused qkv matrix counts as a value matrix.
_ROLE_PARTS: tuple[tuple[str, Role], ...] = (
    ("attn_qkv.weight", Role.ATTN_V),
    ("attn_kv_b.weight", Role.ATTN_V),
    ("attn_v.weight", Role.ATTN_V),
    ("attn_k.weight", Role.ATTN_K),
    ("attn_q.weight", Role.ATTN_Q),
    ("attn_output.weight", Role.ATTN_OUTPUT),
    ("ffn_up", Role.FFN_UP),
    ("ffn_gate", Role.FFN_GATE),
    ("ffn_down", Role.FFN_DOWN),
)


def role_of(name: str) -> Role:
    """The role that a GGUF tensor's name tells."""
    if name == "output.weight":
        return Role.OUTPUT
    if name in TOKEN_EMBEDDINGS:
        return Role.EMBEDDING
    return next((role for part, role in _ROLE_PARTS if part in name), Role.OTHER)


_LAYER = re.compile(r"blk\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to."""
    found = _LAYER.match(name)
    return int(found.group(1)) if found else None


def in_order(name: str) -> tuple[int, bytes]:
    """Sorts as llama.cpp goes through a model: by layer, then by name."""
    layer = layer_of(name)
    return (-1 if layer is None else layer, name.encode())
