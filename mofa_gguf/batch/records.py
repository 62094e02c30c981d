"""An output line: OpenAI's batch output, whose id tells which line of which input it answers.

    {"id": "batch_req_7_<line>_<options>", "custom_id": "a", "response": {...}, "error": null}

``<line>`` are 16 hexadecimal digits for the bytes of input line 7, ``<options>`` eight for the
options and the model that it was computed with: an output file needs nothing beside it to be gone
on with, and refuses another input. Of ``response`` and ``error`` one is null.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from mofa_gguf.batch.jobs import Job, LineError
from mofa_gguf.contract import ChatCompletionResponse, EmbeddingResponse, LLMError, errors

PREFIX = b'{"id": "batch_req_'
"""How every output line begins."""

_ID = re.compile(rb'\{"id": ?"batch_req_([1-9][0-9]{0,17})_([0-9a-f]{16})_([0-9a-f]{8})"')
_NO_ERROR = (b'"error": null}', b'"error":null}')


@dataclass(frozen=True)
class RecordId:
    """Which line an output line answers, and whether it failed."""

    number: int
    line_digest: int
    options_digest: str
    failed: bool


def digest(line: bytes) -> int:
    """A number of 64 bits for an input line, never 0."""
    return int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "big") or 1


def read_record_id(line: bytes) -> RecordId | None:
    """What a whole output line says of itself; None when it is none.

    Only its ends are read: lines are long, and files have many.
    """
    found = _ID.match(line)
    whole = line.rstrip()
    if found is None or not whole.endswith(b"}"):
        return None
    number, line_digest, options_digest = found.groups()
    return RecordId(
        int(number),
        int(line_digest, 16),
        options_digest.decode(),
        failed=not whole.endswith(_NO_ERROR),
    )


def success(response: ChatCompletionResponse | EmbeddingResponse) -> dict[str, Any]:
    """The two last keys of a line that was answered."""
    body = response.to_dict()
    return {"response": {"status_code": 200, "body": body}, "error": None}


def failure(code: str, message: str) -> dict[str, Any]:
    """The two last keys of a line that failed."""
    return {"response": None, "error": {"code": code, "message": message}}


def failure_of(error: Exception) -> tuple[str, str]:
    """An error's code (``context_length_exceeded`` for ContextLengthExceeded) and message."""
    if isinstance(error, LineError):
        return error.code, error.message
    if isinstance(error, LLMError):
        kind = next(k for k in type(error).__mro__ if vars(errors).get(k.__name__) is k)
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower(), error.message
    return "unexpected_error", f"{type(error).__name__}: {error}"


def write_record(job: Job, line_digest: int, options_digest: str, outcome: dict[str, Any]) -> bytes:
    """An output line, with its line break."""
    record = {
        "id": f"batch_req_{job.number}_{line_digest:016x}_{options_digest}",
        "custom_id": job.custom_id,
        **outcome,
    }
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can carry and UTF-8 cannot
        return json.dumps(record).encode() + b"\n"
