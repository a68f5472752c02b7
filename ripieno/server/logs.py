"""Structured logs: one JSON object a line, with the fields that a record brought as `extra`.

Lines are written by a thread of their own: whoever reads them late, or never, must not hold up the event loop.
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


WAITING = 10_000
"""Records that may wait to be written; more are dropped and counted."""
PIECE = 4096
"""Bytes written at once: a pipe that polls as writable has room for so many (PIPE_BUF), and the write never blocks."""


class BackgroundHandler(logging.handlers.QueueHandler):
    """A handler whose thread writes to `stream`. It never blocks: with WAITING records unwritten it drops new ones.

    `close` writes what waits, for at most a second.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        super().__init__(self._lines)
        self._stream = stream
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="ripieno-log", daemon=True)
        self._thread.start()

    def prepare(self, record: logging.LogRecord) -> Any:
        """The line itself: what a record refers to may have changed when it is written."""
        return self.format(record)

    def enqueue(self, record: Any) -> None:
        """Hand over a line, or count it as dropped."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until what was logged is written, for at most a second."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, 1.0)

    def close(self) -> None:
        """Write what waits, for at most a second, and end the thread."""
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
        except (OSError, ValueError, AttributeError):  # a stream in memory, or a closed one
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(line + "\n")
                self._stream.flush()
            return
        left = memoryview((line + "\n").encode())
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while left:
            # by the descriptor: a thread that is stopped inside the stream's own buffer aborts the interpreter's end
            poll.poll()
            try:
                left = left[os.write(descriptor, left[:PIECE]) :]
            except OSError:  # the reader has left
                return


def warn_to(stream: IO[str]) -> None:
    """Write the warnings of this package to `stream` as plain lines."""
    handler = BackgroundHandler(stream)
    handler.setLevel(logging.WARNING)
    logging.getLogger("ripieno").addHandler(handler)


def log_to(stream: IO[str], level: int | str = logging.INFO) -> logging.Handler:
    """Write the server's log to `stream` as JSON lines, requests at INFO. Returns the handler, to take it off."""
    handler = BackgroundHandler(stream)
    handler.setFormatter(JsonFormatter())
    for name in ("ripieno", "uvicorn", "opentelemetry"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
    return handler
