"""The bundles of a server: opened at the start, exchanged while it answers, closed at the end.

An exchange loads the new engine beside the old one, hands requests to it from then on, and closes the old one when its
last request is answered: none fails. A bundle that cannot be loaded leaves the old engine where it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import psutil

from ripieno.errors import RipienoError
from ripieno.library.bundle import model_path, read_bundle
from ripieno.server.line import Asked, Line
from ripieno.server.models import Models
from ripieno.server.signature import ENSEMBLE
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.engine import Isolation

log = logging.getLogger("ripieno.server")

Source: TypeAlias = str | Path | Bundle | Asked
"""A bundle's folder, a bundle, or an engine, which is then its owner's to close."""
Sources: TypeAlias = Source | Mapping[str, Source]
"""One bundle, the model `ensemble`, or several by the names of their models."""

BASE_BYTES = 96 << 20
"""What an engine takes beside its networks: the runtime and the ring."""


class House:
    """Opens, exchanges and closes engines; `models` says what they answer."""

    def __init__(self, sources: Sources, isolation: str, max_samples: int, trusted: Sequence[str] = ()) -> None:
        self.isolation = isolation
        self.trusted = tuple(trusted)
        self.models = Models(max_samples)
        self.sources = dict(sources) if isinstance(sources, Mapping) else {ENSEMBLE: sources}
        self._ours: list[Asked] = []
        self._exchange = asyncio.Lock()
        if not self.sources or not all(_is_name(name) for name in self.sources):
            names = ", ".join(map(repr, self.sources)) or "none"
            raise RipienoError(f"model names are {names}, must be letters, digits, '-' and '_', at least one")
        try:
            for name, source in self.sources.items():
                self.models.put(self._open(source, name), name)
        except BaseException:
            self.close()
            raise

    def _open(self, source: Source, name: str) -> Asked:
        """An engine that answers as the model `name`.

        Raises RipienoError when it cannot be loaded, would not fit in memory, or has names that are taken.
        """
        if not isinstance(source, (str, Path, Bundle)):
            return source
        # a link is followed now: a lane that dies after it was turned must find the files its engine began with
        bundle = source if isinstance(source, Bundle) else read_bundle(Path(source).resolve())
        self.models.offered(bundle, name)  # refused before it is loaded
        check_memory(bundle, free_bytes())
        from ripieno.engine import Engine

        isolation = cast("Isolation", self.isolation)  # the engine says itself what others there are
        engine = Engine(bundle, isolation=isolation, trusted=self.trusted)
        self._ours.append(engine)
        return engine

    async def exchange(self, name: str | None = None) -> bool:
        """Load the bundles (or the one of the model `name`) again from where they came, and answer with them.

        False when one could not be loaded: the log says why, and the old one goes on.
        """
        done = True
        async with self._exchange:
            for model, source in self.sources.items():
                if name not in (None, model):
                    continue
                if not isinstance(source, (str, Path, Bundle)):
                    log.warning("%s was given as an engine, which cannot be loaded again", model)
                    done = False
                    continue
                try:
                    given = source.path if isinstance(source, Bundle) else source
                    engine = await asyncio.to_thread(self._open, given, model)
                except RipienoError as error:
                    log.error("%s was not exchanged, the old bundle goes on: %s", model, error)
                    done = False
                    continue
                before = self.models.put(engine, model)
                log.info("%s was exchanged for the bundle at %s", model, engine.bundle.path)
                if before is not None:
                    await self._retire(before)
        return done

    async def _retire(self, line: Line) -> None:
        """Close an engine that gets no new requests, once its last is answered."""
        while line.users:
            await asyncio.sleep(0.02)
        line.close()
        if line.engine in self._ours:
            self._ours.remove(line.engine)
            await asyncio.to_thread(line.engine.close)

    def close(self) -> None:
        """Close the engines that were opened here."""
        for line in self.models.lines.values():
            line.close()
        while self._ours:
            self._ours.pop().close()


def _is_name(name: str) -> bool:
    return bool(name) and len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)


def needed_bytes(bundle: Bundle) -> int:
    """About what a bundle's engine takes: each network's file twice (as read, and as laid out to run), and the base."""
    return BASE_BYTES + sum(2 * model_path(bundle, m).stat().st_size for m in bundle.ensemble.members)


def free_bytes() -> int:
    """Memory this process can still have: the machine's, or its control group's where that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            free = min(free, int(most) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control groups of version 2 here
    return free


def check_memory(bundle: Bundle, free: int) -> None:
    """Raises RipienoError when a bundle's engine would take more than `free` bytes on the processor's devices."""
    needed = needed_bytes(bundle)
    if needed > free:
        raise RipienoError(
            f"{bundle.path} needs about {needed >> 20} MiB, {max(free, 0) >> 20} MiB are free: "
            "serve fewer bundles, or select under a smaller budget"
        )
