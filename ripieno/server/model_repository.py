"""Model repository of a server: opens bundles at the start, reloads them while it serves, closes them at the end.

A reload loads the new engine while the old one serves, sends new requests to it from then on, and closes the old one
after its last request: no request fails. When a bundle cannot be loaded, the old engine continues to serve.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ripieno.backends.network_part import backbone_file
from ripieno.engine.config import EngineConfig
from ripieno.engine.model_runner import describe
from ripieno.errors import EngineError, RipienoError
from ripieno.library.bundle import model_files, model_path, read_bundle
from ripieno.library.validation_statistics import FILE, read_statistics
from ripieno.resources import free_memory
from ripieno.server.event_loop import in_daemon_thread
from ripieno.server.models import AnyEngine, Models, ServedEngine
from ripieno.server.scratch import Scratch
from ripieno.server.signature import ENSEMBLE
from ripieno.types import Bundle

log = logging.getLogger("ripieno.server")

ModelSource: TypeAlias = "str | Path | Bundle | AnyEngine"
"""A bundle's folder, a bundle, or an engine, which the caller must close."""
ModelSources: TypeAlias = "ModelSource | Mapping[str, ModelSource]"
"""One bundle, served as the model `ensemble`, or several by the names of their models."""

WARM_UP_SECONDS = 60.0
"""Seconds within which a new engine must predict one sample before it serves requests."""
BASE_BYTES = 96 << 20
"""Memory of an engine without its networks: the runtime and the ring."""


class ModelRepository:
    """Repository that opens, reloads and closes engines; `models` has the models they serve."""

    def __init__(
        self,
        sources: ModelSources,
        config: EngineConfig,
        max_samples: int,
        trusted: Sequence[str] = (),
        watch: bool = False,
        keep: tuple[Path, int] | None = None,
        labels: Path | None = None,
    ) -> None:
        self.config = config
        several = isinstance(sources, Mapping) and len(sources) > 1
        self.models = Models(max_samples, watch, keep, labels, keeps_apart=several)
        self.sources = dict(sources) if isinstance(sources, Mapping) else {ENSEMBLE: sources}
        bundles = [source for source in self.sources.values() if isinstance(source, Bundle)]
        self.trusted = (*trusted, *(family for bundle in bundles for family in bundle.trusted))
        self._opened: list[AnyEngine] = []
        self._copies: dict[int, Scratch] = {}
        """folders with copies of the files of each opened engine, by its `id`"""
        self._reloading = asyncio.Lock()
        self._waiting: dict[str | None, asyncio.Future[bool]] = {}
        """reloads that have not begun, by the name of their model"""
        self._closed = False
        if not self.sources or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in self.sources):
            names = ", ".join(map(repr, self.sources)) or "none"
            raise RipienoError(f"model names are {names}, must be one or more, of letters, digits, '-' and '_'")
        try:
            for name, source in self.sources.items():
                self.models.register(self._open(source, name), name)
        except BaseException:
            self.close()
            raise

    def _open(self, source: ModelSource, name: str) -> AnyEngine:
        """Open the engine of the model `name`.

        Raises RipienoError when it cannot be loaded, does not fit in memory, or has model names that are in use.
        """
        if not isinstance(source, (str, Path, Bundle)):
            return source
        bundle = read_bundle(source if isinstance(source, Bundle) else os.path.realpath(source), self.trusted)
        self.models.signatures_of(bundle, name)  # raises before the engine is loaded
        if self.models.watch:
            read_statistics(bundle)  # as above
        check_memory(bundle, free_memory())
        from ripieno.engine import Engine

        copy = copy_models(bundle)
        try:
            copied = bundle if copy is None else dataclasses.replace(bundle, path=copy.path)
            engine = Engine(copied, self.config)
        except BaseException as error:
            if copy is None:
                raise
            copy.remove()
            if isinstance(error, EngineError):  # the user knows the bundle's folder, not the copy's
                raise EngineError(str(error).replace(str(copy.path), str(bundle.path))) from error
            raise
        self._opened.append(engine)
        if copy is not None:
            self._copies[id(engine)] = copy
        if self._closed:  # while the engine was loaded
            self._close(engine)
            raise EngineError("The server stopped while the bundle was loaded.")
        return engine

    def _open_and_warm_up(self, source: ModelSource, name: str) -> AnyEngine:
        """Open an engine and predict once: a loaded engine may still fail to predict. Raises as `_open`."""
        engine = self._open(source, name)
        try:
            warm_up(engine)
        except BaseException:
            self._close(engine)
            raise
        return engine

    def _close(self, engine: AnyEngine) -> None:
        if engine in self._opened:
            self._opened.remove(engine)
            engine.close()
            if (copy := self._copies.pop(id(engine), None)) is not None:
                copy.remove()

    async def reload(self, name: str | None = None) -> bool:
        """Reload all bundles, or the bundle of the model `name`, from their original locations.

        Return False when a reload fails: the reason is logged, and the old engine continues to serve. A call while
        another reload of the same model waits shares that one.
        """
        waiting = self._waiting.get(name)
        if waiting is None:
            waiting = self._waiting[name] = asyncio.ensure_future(self._reload_in_turn(name))
        return await asyncio.shield(waiting)

    async def _reload_in_turn(self, name: str | None) -> bool:
        async with self._reloading:
            del self._waiting[name]  # this reload may miss files written from here on
            models = [model for model in self.sources if name in (None, model)]
            return all([await self._reload(model) for model in models])

    async def _reload(self, model: str) -> bool:
        source = self.sources[model]
        if not isinstance(source, (str, Path, Bundle)):
            log.warning("cannot reload model %s: it was passed as an engine, not as a bundle", model)
            return False
        path = source.path if isinstance(source, Bundle) else source
        try:
            engine = await in_daemon_thread(self._open_and_warm_up, path, model)
            before = self.models.register(engine, model)
        except RipienoError as error:
            log.error("reload of model %s failed; still serving the previous version: %s", model, error)
            return False
        except Exception as error:
            log.exception("reload of model %s failed; still serving the previous version: %s", model, describe(error))
            return False
        log.info("reloaded model %s from %s", model, path)
        if before is not None:
            await self._unload(before)
        return True

    async def _unload(self, replaced: ServedEngine) -> None:
        """Close an engine that receives no new requests, after its last request."""
        while replaced.users:
            await asyncio.sleep(0.02)
        try:
            await asyncio.to_thread(replaced.close_watcher)
            await asyncio.to_thread(self._close, replaced.engine)
        except Exception:
            log.exception("cannot close the replaced engine")

    def close(self) -> None:
        """Close the engines that were opened here."""
        self._closed = True
        for served in self.models.engines.values():
            served.close_watcher()
            if served.labels is not None:
                served.labels.close()
        while self._opened:
            self._close(self._opened[-1])


def copy_models(bundle: Bundle) -> Scratch | None:
    """Copy a bundle's networks to a separate folder; return None, with a warning, if they cannot be copied.

    A restarted worker must load the files that its engine started with, even if the bundle was overwritten meanwhile.
    """
    copy = None
    try:
        copy = Scratch()
        statistics = (FILE,) if (bundle.path / FILE).is_file() else ()
        for name in (*model_files(bundle), *statistics):
            (copy.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, copy.path / name)
    except OSError as error:
        if copy is not None:
            copy.remove()
        log.warning(
            "cannot copy the files of %s (%s); workers that restart after it has changed will fail", bundle.path, error
        )
        return None
    return copy


def warm_up(engine: AnyEngine) -> None:
    """Predict one blank sample. Raises EngineError when the engine does not answer, or not with finite numbers."""
    bundle = engine.bundle
    blank = np.zeros((1, *bundle.input.shape), bundle.input.dtype)
    try:
        engine.submit(blank, timeout=WARM_UP_SECONDS).result(WARM_UP_SECONDS)
    except TimeoutError:
        raise EngineError(f"the engine did not predict one sample within {WARM_UP_SECONDS:g} s") from None


def needed_bytes(bundle: Bundle) -> int:
    """Estimate the memory of a bundle's engine: the base, plus twice each network's file (as read, and as loaded)."""
    paths = {model_path(bundle, m.id): m for m in bundle.members if m.id in bundle.ensemble.members}
    backbones = {backbone_file(path, member) for path, member in paths.items() if member.backbone}
    return BASE_BYTES + sum(2 * path.stat().st_size for path in (*paths, *backbones))


def check_memory(bundle: Bundle, free: int) -> None:
    """Raise RipienoError when a bundle's engine needs more than `free` bytes on the CPU devices."""
    needed = needed_bytes(bundle)
    if needed > free:
        raise RipienoError(
            f"{bundle.path} needs about {needed >> 20} MiB, {free >> 20} MiB are free. "
            "Serve fewer bundles, or select under a smaller budget."
        )
