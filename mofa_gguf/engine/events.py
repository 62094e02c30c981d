"""Events in the log: stable names, and the facts as fields of the record.

Each is an ordinary record of :mod:`logging` whose message reads well and whose attribute ``event``
is one of :data:`EVENTS`; :func:`event_fields` gives its facts back, as plain values for JSON.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass


@dataclass(frozen=True)
class EventKind:
    """When an event happens, how urgent it is, and which facts it has."""

    meaning: str
    level: int
    fields: tuple[str, ...]


EVENTS: dict[str, EventKind] = {
    "model.loaded": EventKind(
        "a model can be used", logging.INFO, ("model", "path", "n_bytes", "seconds")
    ),
    "model.load_failed": EventKind(
        "a model was not found or could not be loaded",
        logging.INFO,
        ("model", "error", "reason"),
    ),
    "model.unloaded": EventKind("a model's memory is free", logging.INFO, ("model", "n_bytes")),
    "request.finished": EventKind(
        "a request was answered",
        logging.INFO,
        (
            "model",
            "request",
            "operation",
            "finish_reasons",
            "n_prompt_tokens",
            "n_cached_tokens",
            "n_generated_tokens",
            "queue_s",
            "prefill_s",
            "decode_s",
            "seconds",
        ),
    ),
    "request.refused": EventKind(
        "a request was not taken in: it is wrong, too long, or there is no room for it",
        logging.INFO,
        ("model", "request", "operation", "error", "reason", "seconds"),
    ),
    "request.failed": EventKind(
        "a request failed after it was taken in",
        logging.INFO,
        ("model", "request", "operation", "error", "reason", "seconds"),
    ),
    "request.cancelled": EventKind(
        "the caller closed the stream or cancelled the task",
        logging.INFO,
        ("model", "request", "operation", "seconds"),
    ),
    "engine.decode_failed": EventKind(
        "llama.cpp could not compute a batch; the requests in it fail",
        logging.WARNING,
        ("n_requests", "status", "reason"),
    ),
    "cache.evicted": EventKind(
        "cached tokens gave way to others", logging.DEBUG, ("n_cells", "n_cells_free")
    ),
}
"""Every event; names and fields stay, new ones may come. What a caller is told by an error is no
warning as well."""


def emit(logger: logging.Logger, event: str, **fields: object) -> None:
    """Log an event of :data:`EVENTS` with all of its fields; None for those that do not apply."""
    kind = EVENTS[event]
    assert set(fields) == set(kind.fields), f"{event}: {sorted(fields)}"
    if not logger.isEnabledFor(kind.level):
        return
    told = " ".join(f"{name}={_shown(fields[name])}" for name in kind.fields)
    logger.log(kind.level, "%s %s", event, told, extra={"event": event, "fields": fields})


def event_fields(record: logging.LogRecord) -> dict[str, object] | None:
    """An event's name and facts as plain values; None for any other record."""
    event, fields = getattr(record, "event", None), getattr(record, "fields", None)
    if event not in EVENTS or not isinstance(fields, dict):
        return None
    return {"event": event, **fields}


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record: time, level, logger, the event's facts or the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        facts = event_fields(record) or {"message": record.getMessage()}
        line: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            **facts,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
