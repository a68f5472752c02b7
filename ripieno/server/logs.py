"""Structured logs: one JSON object per line, with the fields that a record has as `extra`.

A separate thread writes the lines, so that a slow or absent reader does not block the event loop.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import select
import threading
from typing import IO, Any

import orjson

FIELDS = ("request", "model", "samples", "status", "seconds")
"""Extra fields of the record of a request."""


class JsonFormatter(logging.Formatter):
    """Formatter to one line of JSON: time (Unix seconds), level, logger, message, fields, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
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


WAITING = 10_000
"""Maximum unwritten records; more are dropped and counted."""
PIECE = 4096
"""Bytes written at once: a pipe that polls as writable has room for PIPE_BUF bytes, so that the write never blocks."""


class BackgroundHandler(logging.handlers.QueueHandler):
    """A handler with a thread that writes to `stream`. It never blocks: over WAITING unwritten records, it drops new.

    `close` writes the remaining records, for at most one second.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        super().__init__(self._lines)
        self._stream = stream
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="ripieno-log", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> Any:
        """Format the record now: objects that it references may change before it is written."""
        return self.format(record)

    def enqueue(self, record: Any) -> None:
        """Queue a line, or count it as dropped."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until all records are written, for at most one second."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, 1.0)

    def close(self) -> None:
        """Write the remaining records, for at most one second, and stop the thread."""
        self.flush()
        self.enqueue(None)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(line)
            self._lines.task_done()
            if self._dropped and self._lines.empty():
                lost, self._dropped = self._dropped, 0
                self._write(orjson.dumps({"level": "warning", "message": f"{lost} log records were dropped"}).decode())
        self._lines.task_done()

    def _write(self, line: str) -> None:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):  # an in-memory or closed stream
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                self._stream.flush()
            return
        left = memoryview((line + "\n").encode())
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while left:
            # write to the descriptor: a thread stopped inside the stream's buffer aborts the interpreter's shutdown
            poll.poll()
            try:
                left = left[os.write(descriptor, left[:PIECE]) :]
            except OSError:  # the reader has closed the pipe
                return


def warn_to(stream: IO[str]) -> None:
    """Write the warnings of this package to `stream` as plain lines."""
    handler = BackgroundHandler(stream)
    handler.setLevel(logging.WARNING)
    logging.getLogger("ripieno").addHandler(handler)


def log_to(stream: IO[str], level: int | str = logging.INFO) -> logging.Handler:
    """Write the server's log to `stream` as JSON lines, requests at INFO. Return the handler, for its removal."""
    handler = BackgroundHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name in ("ripieno", "uvicorn", "opentelemetry"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
    return handler
