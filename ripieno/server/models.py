"""Models of a server: ensembles, and each of their members alone."""

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
    """A named model: an ensemble, or one of its members."""

    signature: ModelSignature
    engine: AsyncEngine
    member: tuple[str, ...] | None = None
    """the single member; None for the ensemble"""
    stats: ServedModelStats = field(default_factory=ServedModelStats)

    async def answer(self, request: InferenceRequest, timeout: float) -> Answer:
        """Predict within `timeout` seconds, or within the request's shorter timeout, and count the request.

        Raises HttpError as `AsyncEngine.infer`.
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
        """Submit to the engine without waiting for room, and count nothing. Raises as the engine's `submit`."""
        names = {w.name for w in request.outputs}
        members = self._members(request)
        return self.engine.engine.submit(
            request.images, members, spread="spread" in names, each="members" in names, block=False
        )

    def _members(self, request: InferenceRequest) -> tuple[str, ...] | None:
        """Return the members to submit to; `cascade: false` names all members, which disables early exit."""
        whole = self.member is None and request.parameters.get("cascade") is False
        return self.signature.members if whole else self.member

    def statistics(self) -> dict[str, object]:
        """Return the document of `GET /v2/models/M/stats`."""
        return self.stats.statistics(self.signature.name, VERSION)


class Models:
    """All models of a server by name. An engine can be replaced while requests are in flight."""

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples
        self.by_name: dict[str, Model] = {}
        self.engines: dict[str, AsyncEngine] = {}
        """by the name of the ensemble"""
        self.by_path: dict[bytes, str] = {}
        """names of models by the path of their inference endpoint"""

    def register(self, engine: EngineProtocol, name: str = ENSEMBLE) -> AsyncEngine | None:
        """Serve an engine's ensemble as `name`, from the next request on.

        Members are served by their ids, and as `name.ID` if the ensemble is not the default one. Returns the engine
        that it replaced, which may still have requests. Raises RipienoError as `signatures_of`.
        """
        added_signatures = self.signatures_of(engine.bundle, name)
        replaced, added = self.engines.get(name), AsyncEngine(engine)
        models = {n: m for n, m in self.by_name.items() if m.engine is not replaced}
        for signature in added_signatures:
            stats = self.by_name[signature.name].stats if signature.name in self.by_name else ServedModelStats()
            member = None if signature.name == name else signature.members
            models[signature.name] = Model(signature, added, member, stats)
        self.by_name, self.engines = models, {**self.engines, name: added}
        self.by_path = {f"/v2/models/{model}/infer".encode(): model for model in models}
        return replaced

    def signatures_of(self, bundle: Bundle, name: str) -> list[ModelSignature]:
        """Return the signatures that `bundle` would have as `name`: its ensemble and its members.

        Raises RipienoError when two models would have the same name: a member may be named like an ensemble.
        """
        added = signatures(bundle, prefix="" if name == ENSEMBLE else name, max_samples=self.max_samples)
        others = [n for n, m in self.by_name.items() if m.engine is not self.engines.get(name)]
        for duplicate, count in Counter([*others, *(s.name for s in added)]).items():
            if count > 1:
                raise RipienoError(
                    f"Duplicate model name {duplicate!r}, from {bundle.path}. Serve the bundle as NAME=FOLDER, "
                    "with another NAME."
                )
        return added

    def ready(self) -> bool:
        """Return whether every engine is ready."""
        return bool(self.engines) and all(served.engine.ready for served in self.engines.values())

    def readiness(self) -> Mapping[str, bool]:
        """Return for each model whether it is ready."""
        return {name: model.engine.engine.ready for name, model in self.by_name.items()}

    def find(self, name: str, version: str = VERSION) -> Model:
        """Return a model. Raises HttpError (404) that lists the available models."""
        model = self.by_name.get(name)
        if model is None:
            known = ", ".join(list(self.by_name)[:8])
            raise HttpError(404, f"Not found: model {name[:80]!r}. Available models: {known}.")
        if version not in (VERSION, ""):
            raise HttpError(404, f"Not found: version {version[:20]!r} of model {name!r}. Use version {VERSION}.")
        return model

    @contextmanager
    def acquire(self, name: str, version: str = VERSION) -> Iterator[Model]:
        """Keep the engine of a model open while the block runs; yield the model. Raises HttpError as `find`."""
        model = self.find(name, version)
        model.engine.users += 1
        try:
            yield model
        finally:
            model.engine.users -= 1
