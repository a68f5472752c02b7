"""Structured logs: one JSON object a line, with the fields that a record brought as `extra`."""

from __future__ import annotations

import logging
from typing import IO, Any

import orjson

FIELDS = ("request", "model", "samples", "status", "seconds")
"""What a request's record brings."""


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (Unix seconds), level, logger, message, fields, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({f: getattr(record, f) for f in FIELDS if hasattr(record, f)})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_to(stream: IO[str], level: int | str = logging.INFO) -> logging.Handler:
    """Write the server's log to `stream` as JSON lines, requests at INFO. Returns the handler, to take it off."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name in ("ripieno", "uvicorn", "opentelemetry"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
    return handler
