"""A conversation's computed cells as a file, so that a restarted agent goes on without prefill.

    "MOFASESS"  8 bytes
    length      4 bytes, little-endian: of the description
    description JSON: version, fingerprint, n_tokens, n_bytes, sha256 of what follows
    tokens      n_tokens of 4 bytes, little-endian
    state       n_bytes, as ``llama_state_seq_get_data`` gives them

Cells mean something only to the model that computed them, in the same layout; the fingerprint says
which that is, and a file with another one is refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mofa_gguf.engine.cache.memory import State
from mofa_gguf.engine.errors import SessionError
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.options import EngineOptions

MAGIC = b"MOFASESS"
VERSION = 1
_MAX_DESCRIPTION = 2**16
_N_SAMPLES, _SAMPLE_BYTES = 16, 2**16


@dataclass(frozen=True)
class Session:
    """Tokens and the state of their cells."""

    tokens: list[int]
    state: State


def fingerprint(header: GGUFHeader, options: EngineOptions, *, library: str) -> dict[str, Any]:
    """What must be the same for a state to be valid: model, layout of the cache, llama.cpp.

    The model counts by its header and by samples of its weights: reading all would take as long
    as the prefill that is saved.
    """
    digest = hashlib.sha256()
    for tensor in header.tensors:
        digest.update(repr((tensor.name, tensor.shape, tensor.type.name)).encode())
    step = max(1, (header.n_bytes - header.data_offset) // _N_SAMPLES)
    with header.path.open("rb") as file:
        for at in range(header.data_offset, header.n_bytes, step):
            file.seek(at)
            digest.update(file.read(_SAMPLE_BYTES))
    for adapter in options.lora:
        digest.update(repr(adapter.scale).encode() + Path(adapter.path).read_bytes())
    return {
        "model": digest.hexdigest(),
        "n_bytes": header.n_bytes,
        "cache_type_k": options.cache_type_k,
        "cache_type_v": options.cache_type_v,
        "flash_attn": options.flash_attn,
        "llama_cpp": library,
    }


def write_session(path: Path, session: Session, mark: dict[str, Any]) -> None:
    """Write a session; the file appears whole or not at all. Raises SessionError."""
    tokens = struct.pack(f"<{len(session.tokens)}I", *session.tokens)
    digest = hashlib.sha256(tokens)
    digest.update(session.state)
    description = json.dumps(
        {
            "version": VERSION,
            "fingerprint": mark,
            "n_tokens": len(session.tokens),
            "n_bytes": len(session.state),
            "sha256": digest.hexdigest(),
        }
    ).encode()
    try:
        if path.exists() and not path.is_file():
            raise SessionError(path, "is no ordinary file")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".session-", delete=False) as file:
            try:
                for part in (MAGIC, struct.pack("<I", len(description)), description, tokens):
                    file.write(part)
                file.write(session.state)
                file.flush()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise SessionError(path, f"cannot be written ({error.strerror})") from error


def read_session(path: Path, mark: dict[str, Any]) -> Session:
    """Read a session back. Raises SessionError for a damaged one or one of another model."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SessionError(path, f"cannot be read ({error.strerror})") from error
    description, body = _description(path, content)
    found = description["fingerprint"]
    if found != mark:
        differing = sorted(
            k for k in mark if not isinstance(found, dict) or found.get(k) != mark[k]
        )
        raise SessionError(
            path,
            f"was saved with another {' and '.join(differing)}; "
            "load it with the same model, options and version, or compute it anew",
        )
    n_token_bytes = 4 * description["n_tokens"]
    if len(body) != n_token_bytes + description["n_bytes"]:
        raise SessionError(path, "is truncated; delete it and compute the conversation anew")
    if hashlib.sha256(body).hexdigest() != description["sha256"]:
        raise SessionError(path, "is damaged; delete it and compute the conversation anew")
    tokens = struct.unpack(f"<{description['n_tokens']}I", body[:n_token_bytes])
    return Session(list(tokens), body[n_token_bytes:])


def _description(path: Path, content: bytes) -> tuple[dict[str, Any], bytes]:
    if content[: len(MAGIC)] != MAGIC or len(content) < len(MAGIC) + 4:
        raise SessionError(path, "is no session file")
    (length,) = struct.unpack_from("<I", content, len(MAGIC))
    start = len(MAGIC) + 4
    try:
        if length > _MAX_DESCRIPTION:
            raise ValueError("its description is too long")
        description = json.loads(content[start : start + length])
        if description["version"] != VERSION:
            raise ValueError(f"its version is {description['version']!r}")
        if not all(_is_count(description[key]) for key in ("n_tokens", "n_bytes")):
            raise ValueError("its counts are no numbers")
        description["fingerprint"], description["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SessionError(path, f"is no session file that can be read ({error})") from error
    return description, content[start + length :]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48
