"""The models a server offers: ensembles, and each of their members alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ripieno.errors import RipienoError
from ripieno.server.async_engine import AsyncEngine, EngineProtocol
from ripieno.server.http_errors import HttpError
from ripieno.server.oip_decode import InferenceRequest
from ripieno.server.served_model_stats import ServedModelStats
from ripieno.server.signature import ENSEMBLE, VERSION, ModelSignature, signatures
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.inference_result import Answer


@dataclass
class Model:
    """A model by its name: an ensemble, or one member of it."""

    signature: ModelSignature
    engine: AsyncEngine
    member: tuple[str, ...] | None = None
    """the member asked alone; None for the ensemble"""
    stats: ServedModelStats = field(default_factory=ServedModelStats)

    async def answer(self, request: InferenceRequest, timeout: float) -> Answer:
        """Ask the engine for at most `timeout` seconds, or less if the request says so, and count it.

        Raises RefusedError as `Line.ask`.
        """
        start = time.perf_counter()
        names = {w.name for w in request.outputs}
        try:
            answer = await self.engine.infer(
                request.images,
                self._members(request),
                min(timeout, request.timeout or timeout),
                spread="spread" in names,
                each="members" in names,
                partial=request.parameters.get("partial") is True,
            )
        except HttpError as refusal:
            self.stats.failed(refusal.status, time.perf_counter() - start)
            raise
        self.stats.answered(len(request.images), time.perf_counter() - start, answer.partial)
        return answer

    def submit(self, request: InferenceRequest) -> Future[Answer]:
        """Ask the engine without waiting for room or an answer, and count nothing. Raises as the engine's `submit`."""
        names = {w.name for w in request.outputs}
        asked = self._members(request)
        return self.engine.engine.submit(
            request.images, asked, spread="spread" in names, each="members" in names, block=False
        )

    def _members(self, request: InferenceRequest) -> tuple[str, ...] | None:
        """Whom a request asks; one that names all members (`cascade: false`) asks them all at once, not in turn."""
        whole = self.member is None and request.parameters.get("cascade") is False
        return self.signature.members if whole else self.member

    def statistics(self) -> dict[str, object]:
        """`GET /v2/models/M/stats`."""
        return self.stats.statistics(self.signature.name, VERSION)


class Models:
    """All models of a server by name. An engine can be exchanged for another while requests are under way."""

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples
        self.by_name: dict[str, Model] = {}
        self.engines: dict[str, AsyncEngine] = {}
        """by the name of the ensemble"""
        self.by_path: dict[bytes, str] = {}
        """names of models by the path that has them infer"""

    def register(self, engine: EngineProtocol, name: str = ENSEMBLE) -> AsyncEngine | None:
        """Offer an engine's ensemble as `name`, from the next request on.

        Members are offered by their ids, and as `name.ID` where the ensemble is not the default one. Returns the line
        that it replaced, which may still hold requests. Raises RipienoError as `offered`.
        """
        made = self.signatures_of(engine.bundle, name)
        before, line = self.engines.get(name), AsyncEngine(engine)
        kept = {n: m for n, m in self.by_name.items() if m.engine is not before}
        for signature in made:
            tally = self.by_name[signature.name].stats if signature.name in self.by_name else ServedModelStats()
            kept[signature.name] = Model(signature, line, None if signature.name == name else signature.members, tally)
        self.by_name, self.engines = kept, {**self.engines, name: line}
        self.by_path = {f"/v2/models/{one}/infer".encode(): one for one in kept}
        return before

    def signatures_of(self, bundle: Bundle, name: str) -> list[ModelSignature]:
        """What `bundle` would offer as `name`: its ensemble and its members.

        Raises RipienoError when two models would have one name: a member's may be that of an ensemble.
        """
        made = signatures(bundle, prefix="" if name == ENSEMBLE else name, max_samples=self.max_samples)
        others = [n for n, m in self.by_name.items() if m.engine is not self.engines.get(name)]
        for again, count in Counter([*others, *(s.name for s in made)]).items():
            if count > 1:
                raise RipienoError(
                    f"two models would be called {again!r}, one of them of {bundle.path}: "
                    "serve the bundle as NAME=FOLDER, by another NAME"
                )
        return made

    def ready(self) -> bool:
        """Whether every engine answers."""
        return bool(self.engines) and all(line.engine.ready for line in self.engines.values())

    def readiness(self) -> Mapping[str, bool]:
        """Whether each model is ready."""
        return {name: model.engine.engine.ready for name, model in self.by_name.items()}

    def find(self, name: str, version: str = VERSION) -> Model:
        """A model. Raises RefusedError (404) that says which there are."""
        model = self.by_name.get(name)
        if model is None:
            known = ", ".join(list(self.by_name)[:8])
            raise HttpError(404, f"no model {name[:80]!r}; there are: {known}")
        if version not in (VERSION, ""):
            raise HttpError(404, f"model {name!r} has version {VERSION} only, not {version[:20]!r}")
        return model

    @contextmanager
    def acquire(self, name: str, version: str = VERSION) -> Iterator[Model]:
        """A model whose engine stays open while the block runs. Raises RefusedError as `find`."""
        model = self.find(name, version)
        model.engine.users += 1
        try:
            yield model
        finally:
            model.engine.users -= 1
