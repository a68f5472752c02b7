"""Why the server will not answer a request: one line for the client, a status for each protocol."""

from __future__ import annotations

import re
from pathlib import Path

from ripieno.errors import RipienoError

_PATH = re.compile(r"(?<![\w\]/.:])/[^\s'\",;:()]+")


class HttpError(RipienoError):
    """A request that gets no answer. `status` is HTTP's; `retry_after` seconds are said where trying again helps."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(sanitize(message))
        self.status = status
        self.retry_after = retry_after


def bad_request(message: str) -> HttpError:
    """The client's mistake: 400."""
    return HttpError(400, message)


def timeout_error(timeout: float) -> HttpError:
    """No answer within `timeout` seconds: 504."""
    return HttpError(504, f"no answer within {timeout:g} s: the server is busy or the request too large")


def without_paths(message: str, bundle: Path) -> str:
    """`message` without absolute paths of this machine, those of the folder `bundle` among them."""
    folder = str(bundle.absolute())
    return _PATH.sub("[path]", message.replace(folder, "[bundle]") if folder != "/" else message)


def sanitize(message: str, longest: int = 300) -> str:
    """`message` without line breaks and control characters, cut to `longest` characters."""
    line = " ".join(message.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= longest else line[: longest - 3] + "..."
