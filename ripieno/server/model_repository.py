"""The bundles of a server: opened at the start, exchanged while it answers, closed at the end.

An exchange loads the new engine beside the old one, hands requests to it from then on, and closes the old one when its
last request is answered: none fails. A bundle that cannot be loaded leaves the old engine where it is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import psutil

from ripieno.engine.model_runner import describe
from ripieno.errors import EngineError, RipienoError
from ripieno.library.bundle import files_of, model_path, read_bundle
from ripieno.server.async_engine import AsyncEngine, EngineProtocol
from ripieno.server.models import Models
from ripieno.server.offload import in_daemon_thread
from ripieno.server.scratch import Scratch
from ripieno.server.signature import ENSEMBLE
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.engine import Isolation

log = logging.getLogger("ripieno.server")

ModelSource: TypeAlias = str | Path | Bundle | EngineProtocol
"""A bundle's folder, a bundle, or an engine, which is then its owner's to close."""
ModelSources: TypeAlias = ModelSource | Mapping[str, ModelSource]
"""One bundle, the model `ensemble`, or several by the names of their models."""

WARM_UP_SECONDS = 60.0
"""Seconds within which an engine must answer one sample before it takes over."""
BASE_BYTES = 96 << 20
"""What an engine takes beside its networks: the runtime and the ring."""


class ModelRepository:
    """Opens, exchanges and closes engines; `models` says what they answer."""

    def __init__(self, sources: ModelSources, isolation: str, max_samples: int, trusted: Sequence[str] = ()) -> None:
        self.isolation = isolation
        self.trusted = tuple(trusted)
        self.models = Models(max_samples)
        self.sources = dict(sources) if isinstance(sources, Mapping) else {ENSEMBLE: sources}
        self._opened: list[EngineProtocol] = []
        self._copies: dict[int, Scratch] = {}
        """folders with the files that each of our engines began with, by its `id`"""
        self._turn = asyncio.Lock()
        self._waiting: dict[str | None, asyncio.Future[bool]] = {}
        """exchanges that have not begun, by the model they are for"""
        self._closed = False
        if not self.sources or not all(_is_name(name) for name in self.sources):
            names = ", ".join(map(repr, self.sources)) or "none"
            raise RipienoError(f"model names are {names}, must be letters, digits, '-' and '_', at least one")
        try:
            for name, source in self.sources.items():
                self.models.register(self._open(source, name), name)
        except BaseException:
            self.close()
            raise

    def _open(self, source: ModelSource, name: str) -> EngineProtocol:
        """An engine that answers as the model `name`.

        Raises RipienoError when it cannot be loaded, would not fit in memory, or has names that are taken.
        """
        if not isinstance(source, (str, Path, Bundle)):
            return source
        bundle = source if isinstance(source, Bundle) else read_bundle(os.path.realpath(source))
        self.models.signatures_of(bundle, name)  # refused before it is loaded
        check_memory(bundle, free_bytes())
        from ripieno.engine import Engine

        isolation = cast("Isolation", self.isolation)  # the engine says itself what others there are
        copy = copy_models(bundle)
        try:
            own = bundle if copy is None else dataclasses.replace(bundle, path=copy.path)
            engine = Engine(own, isolation=isolation, trusted=self.trusted)
        except BaseException as error:
            if copy is None:
                raise
            copy.remove()
            if isinstance(error, EngineError):  # its user knows the bundle's folder, not that of the copies
                raise EngineError(str(error).replace(str(copy.path), str(bundle.path))) from error
            raise
        self._opened.append(engine)
        if copy is not None:
            self._copies[id(engine)] = copy
        if self._closed:  # meanwhile
            self._close(engine)
            raise EngineError("The server stopped while the bundle was loaded.")
        return engine

    def _open_and_warm_up(self, source: ModelSource, name: str) -> EngineProtocol:
        """As `_open`, and the engine has answered once: one that is loaded may yet answer nothing."""
        engine = self._open(source, name)
        try:
            warm_up(engine)
        except BaseException:
            self._close(engine)
            raise
        return engine

    def _close(self, engine: EngineProtocol) -> None:
        if engine in self._opened:
            self._opened.remove(engine)
            engine.close()
            if (copy := self._copies.pop(id(engine), None)) is not None:
                copy.remove()

    async def reload(self, name: str | None = None) -> bool:
        """Load the bundles (or the one of the model `name`) again from where they came, and answer with them.

        False when one could not be loaded: the log says why, and the old one goes on. Who asks while another exchange
        waits for its turn shares that one.
        """
        waiting = self._waiting.get(name)
        if waiting is None:
            waiting = self._waiting[name] = asyncio.ensure_future(self._reload_in_turn(name))
        return await asyncio.shield(waiting)

    async def _reload_in_turn(self, name: str | None) -> bool:
        async with self._turn:
            del self._waiting[name]  # what is written from here on may come too late for this one
            chosen = [model for model in self.sources if name in (None, model)]
            return all([await self._reload(model) for model in chosen])

    async def _reload(self, model: str) -> bool:
        source = self.sources[model]
        if not isinstance(source, (str, Path, Bundle)):
            log.warning("%s was given as an engine, which cannot be loaded again", model)
            return False
        given = source.path if isinstance(source, Bundle) else source
        try:
            engine = await in_daemon_thread(self._open_and_warm_up, given, model)
            before = self.models.register(engine, model)
        except RipienoError as error:
            log.error("%s was not exchanged, the old bundle goes on: %s", model, error)
            return False
        except Exception as error:
            log.exception("%s was not exchanged, the old bundle goes on: %s", model, describe(error))
            return False
        log.info("%s was exchanged for the bundle at %s", model, given)
        if before is not None:
            await self._unload(before)
        return True

    async def _unload(self, line: AsyncEngine) -> None:
        """Close an engine that gets no new requests, once its last is answered."""
        while line.users:
            await asyncio.sleep(0.02)
        try:
            await asyncio.to_thread(self._close, line.engine)
        except Exception:
            log.exception("The engine that was exchanged for another could not be closed.")

    def close(self) -> None:
        """Close the engines that were opened here."""
        self._closed = True
        while self._opened:
            self._close(self._opened[-1])


def _is_name(name: str) -> bool:
    return bool(name) and len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)


def copy_models(bundle: Bundle) -> Scratch | None:
    """Copy a bundle's networks to a folder of their own; None, with a warning, where there is no room for it.

    A worker that starts again must load what its engine began with, whatever is written over the bundle meanwhile.
    """
    copy = None
    try:
        copy = Scratch()
        for member in bundle.ensemble.members:
            (copy.path / "members" / member).mkdir(parents=True)
            for name in files_of(bundle, member):
                shutil.copyfile(bundle.path / "members" / member / name, copy.path / "members" / member / name)
    except OSError as error:
        if copy is not None:
            copy.remove()
        log.warning(
            "A worker that restarts after %s was changed will fail: its files cannot be copied (%s)", bundle.path, error
        )
        return None
    return copy


def warm_up(engine: EngineProtocol) -> None:
    """Ask an engine about one blank sample. Raises EngineError when it does not answer, or not with finite numbers."""
    bundle = engine.bundle
    blank = np.zeros((1, *bundle.input.shape), bundle.input.dtype)
    try:
        engine.submit(blank, timeout=WARM_UP_SECONDS).result(WARM_UP_SECONDS)
    except TimeoutError:
        raise EngineError(f"it did not answer one sample within {WARM_UP_SECONDS:g} s") from None


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
