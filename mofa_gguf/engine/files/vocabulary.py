"""A vocabulary that llama.cpp can read: its lists, its special tokens, its rows of embedding.

What ends the process there (src/llama-vocab.cpp): two tokens of the same text, a special token
that is wanted around every text but does not exist, no vocabulary at all, and a table of
normalizations (``precompiled_charsmap``) that points outside of itself.
"""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from mofa_gguf.engine.errors import ModelFileError, UnsupportedModel
from mofa_gguf.engine.files.cursor import mapped
from mofa_gguf.engine.files.header import ArraySummary, GGUFHeader, TensorInfo

MODEL_KEY = "tokenizer.ggml.model"
_KEY = "tokenizer.ggml."
_CHARSMAP = _KEY + "precompiled_charsmap"
_STRING, _I32 = 8, 5  # gguf.h, enum gguf_type
_BYTE = 6  # llama.h, LLAMA_TOKEN_TYPE_BYTE
_NONE = ("none", "no_vocab")
MAX_TEMPLATE_BYTES = 2**20
"""Far above any published chat template."""
_MAX_TOKEN_BYTES = 2**16
_MAX_AT_ONCE = 2**25
"""Far above the texts of any vocabulary, in bytes."""
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

_MOST_REMEMBERED = 16
_lock = threading.Lock()
_passed: OrderedDict[tuple[str, bytes], None] = OrderedDict()
"""Kinds of vocabulary with digests of their texts: a conversion checks the same ones twice."""


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
    if _CHARSMAP in metadata:
        from mofa_gguf.engine.files.charsmap import check_charsmap

        check_charsmap(header, _CHARSMAP, fail)
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
    model = header.metadata[MODEL_KEY]
    data = _as_they_stand(header)
    known = None if data is None else (model, hashlib.sha256(data).digest())
    with _lock:
        passed = known in _passed
    if not passed:
        _check_each(header, data, fail)
    if model == "bert" and _BYTE in read_types(header):
        raise fail("it is WordPiece, but has byte tokens")
    if known is not None:
        with _lock:
            _passed[known] = None
            while len(_passed) > _MOST_REMEMBERED:
                _passed.popitem(last=False)


def _check_each(header: GGUFHeader, data: bytes | None, fail: Fail) -> None:
    """What depends on the texts and the kind of vocabulary alone."""
    seen = None if data is None else _apart(data, header.metadata[_KEY + "tokens"].length)
    if seen is None:
        texts = read_strings(header, _KEY + "tokens")
        if texts is None:
            raise fail(f"{_KEY}tokens are no texts")
        seen = _told_apart(texts, fail)
    if header.metadata[MODEL_KEY] == "rwkv":
        _check_first_bytes(seen, fail)
    spelt = (b"<0x%02X>" % byte for byte in _SPACE)
    spaced = _SPACE in seen or all(token in seen for token in spelt)
    if header.metadata[MODEL_KEY] == "llama" and not spaced:
        raise fail("it is SentencePiece's kind, but has no token for a space")


def _as_they_stand(header: GGUFHeader) -> bytes | None:
    """The tokens' texts as the file has them; None where a list of any size is not to be taken."""
    value = header.metadata[_KEY + "tokens"]
    if not isinstance(value, ArraySummary) or value.type_id != _STRING:
        return None
    if value.end - value.offset > _MAX_AT_ONCE:
        return None
    with mapped(header.path) as view:
        return view[value.offset : value.end]


def _apart(data: bytes, count: int) -> Set[bytes] | None:
    """The texts, where they are all different as they are; the quick look, for ordinary files."""
    seen = set(plain_strings(data, count) or ())
    return seen if len(seen) == count else None


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


def plain_strings(data: bytes, count: int) -> list[bytes] | None:
    """``count`` strings as they stand in a list; None unless all are short and without zero bytes.

    Numbers are read from each byte on, and small ones taken for lengths. The strings so found are
    those of the list if each begins where the one before it ends, from the first byte to the last.
    """
    if not 0 < count <= len(data) // 9:
        return None
    numbers = np.ndarray((len(data) - 7,), "<u8", buffer=data, strides=(1,))
    small = numbers < _MAX_TOKEN_BYTES
    if not count <= np.count_nonzero(small) <= 2 * count:  # the places of more may fill the memory
        return None
    starts = np.flatnonzero(small)
    # Of two side by side, the first is the end of a text with the length behind it.
    starts = starts[np.append(starts[1:] - starts[:-1] > 1, True)]
    lengths = numbers[starts].astype(np.intp)
    ends = starts + 8 + lengths
    if len(starts) != count or starts[0] or (ends != np.append(starts[1:], len(data))).any():
        return None
    divided = np.frombuffer(bytearray(data), np.uint8)
    divided[starts] = divided[starts + 1] = 0  # a length's other bytes are zero
    kept = divided != 0
    if not lengths.all() or np.count_nonzero(kept) != lengths.sum():
        return None
    kept[starts[1:]] = True  # a zero byte between two texts
    joined: bytes = divided[kept].tobytes()
    return joined.split(b"\0")


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
