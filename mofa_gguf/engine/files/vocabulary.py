"""A vocabulary that llama.cpp can read: its lists, its special tokens, its rows of embedding.

What ends the process there (src/llama-vocab.cpp): two tokens of the same text, a special token
that is wanted around every text but does not exist, no vocabulary at all, and a table of
normalizations (``precompiled_charsmap``) that points outside of itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from mofa_gguf.engine.errors import ModelFileError, UnsupportedModel
from mofa_gguf.engine.files.cursor import mapped
from mofa_gguf.engine.files.header import ArraySummary, GGUFHeader, TensorInfo

MODEL_KEY = "tokenizer.ggml.model"
_KEY = "tokenizer.ggml."
_STRING, _I32 = 8, 5  # gguf.h, enum gguf_type
_BYTE = 6  # llama.h, LLAMA_TOKEN_TYPE_BYTE
_NONE = ("none", "no_vocab")
MAX_TEMPLATE_BYTES = 2**20
"""Far above any published chat template."""
_MAX_TOKEN_BYTES = 2**16
_FIRST_BYTE = re.compile(rb"\\x[0-9a-f]{2}|\\.|[^\\]", re.DOTALL)  # RWKV's way of escaping
_SPACE = "\u2581".encode()  # SentencePiece's

# (key, default id) of what each kind of vocabulary has around a text, unless the file says no.
_AROUND: Mapping[str, Mapping[str, int | None]] = {
    "llama": {"bos": 1, "eos": 2},
    "bert": {"bos": 101, "eos": None, "seperator": 102},
    "gpt2": {"bos": 11, "eos": 11},
    "hybriddna": {"bos": 11, "eos": 11},
    "whitespace": {"bos": 11, "eos": 11},
    "t5": {"bos": None, "eos": 1},
    "gemma4": {"bos": None, "eos": None},
    "plamo2": {"bos": 1, "eos": 2},
}
_ADDS: Mapping[str, frozenset[str]] = {
    "llama": frozenset({"bos"}),
    "bert": frozenset({"bos", "seperator"}),
    "t5": frozenset({"eos"}),
}
_BYTE_LEVEL = frozenset({"gpt2", "hybriddna", "whitespace", "gemma4"})
# Pre-tokenizers of byte-level vocabularies that put bos in front of a text.
_PRES_WITH_BOS = frozenset(
    {
        *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        *("jina-v5-nano", "tekken", "chameleon", "gemma4"),
    }
)
# The model says how these are written: "seperator" is llama.cpp's own spelling.
_FLAGS = {"bos": "add_bos_token", "eos": "add_eos_token"}

Fail = Callable[[str], Exception]


def check_vocabulary(header: GGUFHeader, tensors: Sequence[TensorInfo] = ()) -> None:
    """Raises ModelFileError for a vocabulary that llama.cpp cannot read, or not work with.

    Reads the token texts from the file: about 0.1 s for 150,000 tokens.
    """

    def fail(problem: str) -> Exception:
        return ModelFileError(header.path, f"has a vocabulary that cannot be used: {problem}")

    metadata = header.metadata
    model = metadata.get(MODEL_KEY)
    if model in _NONE:
        raise UnsupportedModel(
            header.path,
            "has no tokenizer (tokenizer.ggml.model is 'none'), so it cannot read text",
            architecture=header.architecture,
        )
    if not isinstance(model, str):
        raise fail(f"{MODEL_KEY} is missing")
    n_tokens = _length(metadata, "tokens", fail)
    if not n_tokens:
        raise fail("it has no tokens")
    _check_lists(metadata, n_tokens, fail)
    _check_rows(tensors, n_tokens, fail)
    _check_around(metadata, model, n_tokens, fail)
    _check_texts(header, fail)
    _check_charsmap(header, fail)
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str) and len(template) > MAX_TEMPLATE_BYTES:
        raise ModelFileError(
            header.path, f"has a chat template of {len(template)} characters; damaged or hostile"
        )


def _length(metadata: Mapping[str, Any], name: str, fail: Fail) -> int:
    value = metadata.get(_KEY + name)
    if isinstance(value, ArraySummary):
        return value.length
    if isinstance(value, list):
        return len(value)
    raise fail(f"{_KEY}{name} is {'missing' if value is None else 'no list'}")


def _check_lists(metadata: Mapping[str, Any], n_tokens: int, fail: Fail) -> None:
    for name in ("scores", "token_type"):
        if _KEY + name in metadata:
            length = _length(metadata, name, fail)
            if length < n_tokens:
                raise fail(f"{length} of {_KEY}{name} for {n_tokens} tokens")


def _check_rows(tensors: Sequence[TensorInfo], n_tokens: int, fail: Fail) -> None:
    for tensor in tensors:
        if tensor.name == "token_embd.weight" and tensor.shape[1:] != (n_tokens,):
            rows = tensor.shape[1] if len(tensor.shape) > 1 else 1
            raise fail(f"{n_tokens} tokens with {rows} rows of token_embd.weight")


def _check_around(metadata: Mapping[str, Any], model: str, n_tokens: int, fail: Fail) -> None:
    """What is put around every text exists; llama.cpp ends the process where it does not."""
    adds = set(_ADDS.get(model, ()))
    if model in _BYTE_LEVEL and str(metadata.get(_KEY + "pre")) in _PRES_WITH_BOS:
        adds.add("bos")
    for name, default in _AROUND.get(model, {}).items():
        flag = metadata.get(_KEY + _FLAGS[name]) if name in _FLAGS else None
        # A BERT vocabulary puts both around a text, whatever the file says.
        wanted = flag if isinstance(flag, bool) and model != "bert" else name in adds
        stated = metadata.get(f"{_KEY}{name}_token_id")
        token = stated if isinstance(stated, int) and 0 <= stated < n_tokens else default
        if wanted and (token is None or not 0 <= token < n_tokens):
            raise fail(
                f"every text gets a {name} token, but {_KEY}{name}_token_id is "
                f"{'missing' if stated is None else stated} ({n_tokens} tokens)"
            )


def _check_texts(header: GGUFHeader, fail: Fail) -> None:
    texts = read_strings(header, _KEY + "tokens")
    if texts is None:
        raise fail(f"{_KEY}tokens are no texts")
    seen = _apart(texts) or _told_apart(texts, fail)
    if header.metadata.get(MODEL_KEY) == "bert" and _BYTE in read_types(header):
        raise fail("it is WordPiece, but has byte tokens")
    if header.metadata.get(MODEL_KEY) == "rwkv":
        _check_first_bytes(seen, fail)
    spelt = (b"<0x%02X>" % byte for byte in _SPACE)
    spaced = _SPACE in seen or all(token in seen for token in spelt)
    if header.metadata.get(MODEL_KEY) == "llama" and not spaced:
        raise fail("it is SentencePiece's kind, but has no token for a space")


def _apart(texts: Sequence[bytes]) -> Set[bytes] | None:
    """The texts, where they are all different as they are; the quick look, for ordinary files."""
    seen = set(texts)
    if len(seen) != len(texts) or b"" in seen or max(map(len, texts)) > _MAX_TOKEN_BYTES:
        return None
    return None if b"\0" in b"".join(texts) else seen


def _told_apart(texts: Sequence[bytes], fail: Fail) -> Set[bytes]:
    """The texts as llama.cpp reads them; the error for two that are the same, or for a long one."""
    seen: dict[bytes, int] = {}
    for n, text in enumerate(texts):
        # llama.cpp reads up to the first zero byte, and names what is empty by its number.
        known = text.partition(b"\0")[0] if b"\0" in text else text
        known = known or b"[EMPTY_%d]" % n
        first = seen.setdefault(known, n)
        if first != n:
            raise fail(f"the tokens {first} and {n} are both {known.decode(errors='replace')!r}")
        if len(text) > _MAX_TOKEN_BYTES:
            raise fail(f"the token {n} has {len(text)} bytes")
    return seen.keys()


def _check_first_bytes(texts: Iterable[bytes], fail: Fail) -> None:
    """Each token of RWKV's kind begins with a byte that is a token, too.

    The tokenizer takes the longest token that the text begins with, and never comes to an end
    where it finds the beginning of one only (``llm_tokenizer_rwkv_session``).
    """
    found = [_FIRST_BYTE.match(text) for text in texts]
    single = {each[0] for each in found if each and each[0] == each.string}
    for each in found:
        if each and each[0] not in single:
            raise fail(f"it is RWKV's kind, but the byte {each[0]!r} is no token by itself")


def read_strings(header: GGUFHeader, key: str) -> list[bytes] | None:
    """All strings of a list in the file, as bytes; None if it is no list of strings."""
    value = header.metadata.get(key)
    if isinstance(value, list):
        if not all(isinstance(each, str) for each in value):
            return None
        return [each.encode("utf-8", errors="surrogateescape") for each in value]
    if not isinstance(value, ArraySummary) or value.type_id != _STRING:
        return None
    unpack = struct.Struct("<Q").unpack_from
    strings = []
    with mapped(header.path) as view:
        at = value.offset
        for _ in range(value.length):
            end = at + 8 + unpack(view, at)[0]
            strings.append(view[at + 8 : end])
            at = end
    return strings


def read_types(header: GGUFHeader) -> Sequence[int]:
    """The tokens' types; empty where the file has none, or none that llama.cpp reads."""
    value = header.metadata.get(_KEY + "token_type")
    if isinstance(value, list):
        return [each for each in value if isinstance(each, int)]
    if not isinstance(value, ArraySummary) or value.type_id != _I32:
        return ()
    with header.path.open("rb") as file:
        file.seek(value.offset)
        return struct.unpack(f"<{value.length}i", file.read(4 * value.length))


def _check_charsmap(header: GGUFHeader, fail: Fail) -> None:
    """No way through SentencePiece's table of normalizations leads outside of it.

    The table is a double array (Kanda 2018): four bytes of its length, its nodes, and the texts
    that leaves point to.
    """
    key = _KEY + "precompiled_charsmap"
    value = header.metadata.get(key)
    if value is None:
        return
    if isinstance(value, list):
        data = bytes(each % 256 for each in value if isinstance(each, int))
    elif isinstance(value, ArraySummary) and value.type_id in (0, 1):
        with header.path.open("rb") as file:
            file.seek(value.offset)
            data = file.read(value.length)
    else:
        raise fail(f"{key} is no list of bytes")
    size = int.from_bytes(data[:4], "little")
    if len(data) < 8 or size % 4 or size + 4 >= len(data) or data[-1]:
        raise fail(f"{key} is damaged")
    nodes = np.frombuffer(data, "<u4", count=size // 4, offset=4)
    if size and _leads_outside(nodes, len(data) - 4 - size):
        raise fail(f"{key} points outside of itself")


def _leads_outside(nodes: Any, n_text_bytes: int) -> bool:
    """Whether a walk from the root, over any text, can leave the nodes or the texts."""
    bases = (nodes >> 10).astype(np.int64) << ((nodes & (1 << 9)) >> 6).astype(np.int64)
    checks = nodes & ((1 << 31) | 0xFF)
    seen = np.zeros(len(nodes), bool)
    # Where each walk stands after a node's base was applied: its children lie at this ^ byte.
    front = np.asarray([int(bases[0])], np.int64)
    every = np.arange(1, 256, dtype=np.int64)
    while front.size:
        children = front[:, None] ^ every
        if children.max(initial=0) >= len(nodes):
            return True
        taken = children[checks[children] == every]
        taken = np.unique(taken[~seen[taken]])
        seen[taken] = True
        front = taken ^ bases[taken]
        leaves = front[(nodes[taken] >> 8) & 1 == 1]
        if leaves.max(initial=0) >= len(nodes):
            return True
        values = nodes[leaves] & ((1 << 31) - 1)
        if values.max(initial=0) >= n_text_bytes:
            return True
    return False
