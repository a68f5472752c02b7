"""Errors of requests: one line for the client, and an HTTP status."""

from __future__ import annotations

import re
from pathlib import Path

from ripieno.errors import RipienoError

_PATH = re.compile(r"(?<![\w\]/.:])/[^\s'\",;:()]+")


class HttpError(RipienoError):
    """An error response with an HTTP `status`; `retry_after` is in seconds, and set where a retry may succeed."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(sanitize(message))
        self.status = status
        self.retry_after = retry_after


def bad_request(message: str) -> HttpError:
    """Return the error for an invalid request: 400."""
    return HttpError(400, message)


def without_paths(message: str, bundle: Path) -> str:
    """Return `message` without absolute paths of this machine, such as that of the folder `bundle`."""
    folder = str(bundle.absolute())
    return _PATH.sub("[path]", message.replace(folder, "[bundle]") if folder != "/" else message)


def sanitize(message: str, longest: int = 300) -> str:
    """Return `message` without line breaks and control characters, cut to `longest` characters."""
    line = " ".join(message.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= longest else line[: longest - 3] + "..."
