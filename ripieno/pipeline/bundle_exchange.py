"""Exchange of a served bundle: its link is turned to a new folder, and the server asked to reload."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ripieno.errors import RipienoError, require, system_error
from ripieno.shell_command import shell

TIMEOUT = 300.0
"""Seconds for a reload: the server loads the new engine first."""


@dataclass(frozen=True)
class ServedModel:
    """A model of a server that serves a bundle."""

    url: str
    model: str = "ensemble"
    token: str | None = None

    def check(self) -> None:
        """Raise RipienoError unless the server answers and has the model."""
        self._request("GET", f"/v2/models/{quote(self.model, safe='')}")

    def reload(self) -> None:
        """Ask the server to load the bundle again, while it answers. Raises RipienoError when it does not."""
        self._request("POST", self._load_path)

    @property
    def reload_command(self) -> str:
        """Command that does the same."""
        words = ["curl", "-fsS", "-X", "POST"]
        words += ["-H", "Authorization: Bearer TOKEN"] if self.token else []
        return shell(*words, self.url.rstrip("/") + self._load_path)

    @property
    def _load_path(self) -> str:
        return f"/v2/repository/models/{quote(self.model, safe='')}/load"

    def _request(self, method: str, path: str) -> None:
        httpx = require("httpx")
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            answer = httpx.request(
                method, self.url.rstrip("/") + path, headers=headers, timeout=TIMEOUT, trust_env=False
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RipienoError(f"No response from {self.url} ({error}). Check that a server runs there.") from error
        if answer.status_code != 200:
            try:
                reason = str(answer.json()["error"])
            except (ValueError, KeyError, TypeError):
                reason = "no reason given"
            raise RipienoError(f"{self.url} returned {answer.status_code}: {reason}")


def next_folder(folder: Path) -> Path:
    """Return a free name next to that of a bundle's folder: `bundle-2`, then `bundle-3`."""
    stem, number = folder.name, 1
    if found := re.fullmatch(r"(.+)-(\d{1,9})", folder.name):
        stem, number = found[1], int(found[2])
    names = (folder.with_name(f"{stem}-{following}") for following in itertools.count(number + 1))
    return next(path for path in names if not os.path.lexists(path))


def turn_link(link: Path, folder: Path) -> None:
    """Make `link` point to `folder`, in one step: a reader finds the old folder or the new one.

    Raises RipienoError when the system refuses it.
    """
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(link_target(link, folder))
        os.replace(temporary, link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RipienoError(system_error(error, "turn", link)) from error


def link_target(link: Path, folder: Path) -> str:
    """Return what a link holds to point to `folder`: a relative path where both are in the same folder."""
    own, target = link.parent.resolve(), folder.parent.resolve() / folder.name
    return target.name if own == target.parent else str(target)


def exchange_commands(served: Path, new: Path, server: ServedModel | None, *, linked: bool = False) -> tuple[str, ...]:
    """Return the commands by which the folder `new` is served as `served`.

    A link is turned; with `linked` it is one by then. A folder first becomes a link: it is moved to the next free name.
    """
    reload = (server.reload_command,) if server is not None else ()
    if linked or served.is_symlink():
        return (shell("ln", "-sfn", link_target(served, new), served), *reload)
    return (
        shell("mv", served, next_folder(new)),
        shell("ln", "-s", link_target(served, new), served),
        *reload,
    )
