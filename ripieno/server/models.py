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
from ripieno.server.codec import Request
from ripieno.server.line import Asked, Line
from ripieno.server.refusal import RefusedError
from ripieno.server.signature import ENSEMBLE, VERSION, Signature, signatures
from ripieno.server.tally import Tally
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.answer import Answer


@dataclass
class Model:
    """A model by its name: an ensemble, or one member of it."""

    signature: Signature
    line: Line
    alone: tuple[str, ...] | None = None
    """the member asked alone; None for the ensemble"""
    tally: Tally = field(default_factory=Tally)

    async def answer(self, request: Request, timeout: float) -> Answer:
        """Ask the engine for at most `timeout` seconds, or less if the request says so, and count it.

        Raises RefusedError as `Line.ask`.
        """
        start = time.perf_counter()
        names = {w.name for w in request.outputs}
        try:
            answer = await self.line.ask(
                request.images,
                self._members(request),
                min(timeout, request.timeout or timeout),
                spread="spread" in names,
                each="members" in names,
                partial=request.parameters.get("partial") is True,
            )
        except RefusedError as refusal:
            self.tally.failed(refusal.status, time.perf_counter() - start)
            raise
        self.tally.answered(len(request.images), time.perf_counter() - start, answer.partial)
        return answer

    def submit(self, request: Request) -> Future[Answer]:
        """Ask the engine without waiting for room or an answer, and count nothing. Raises as the engine's `submit`."""
        names = {w.name for w in request.outputs}
        asked = self._members(request)
        return self.line.engine.submit(
            request.images, asked, spread="spread" in names, each="members" in names, block=False
        )

    def _members(self, request: Request) -> tuple[str, ...] | None:
        """Whom a request asks; one that names all members (`cascade: false`) asks them all at once, not in turn."""
        whole = self.alone is None and request.parameters.get("cascade") is False
        return self.signature.members if whole else self.alone

    def statistics(self) -> dict[str, object]:
        """`GET /v2/models/M/stats`."""
        return self.tally.statistics(self.signature.name, VERSION)


class Models:
    """All models of a server by name. An engine can be exchanged for another while requests are under way."""

    def __init__(self, max_samples: int) -> None:
        self.max_samples = max_samples
        self.by_name: dict[str, Model] = {}
        self.lines: dict[str, Line] = {}
        """by the name of the ensemble"""
        self.by_path: dict[bytes, str] = {}
        """names of models by the path that has them infer"""

    def put(self, engine: Asked, name: str = ENSEMBLE) -> Line | None:
        """Offer an engine's ensemble as `name`, from the next request on.

        Members are offered by their ids, and as `name.ID` where the ensemble is not the default one. Returns the line
        that it replaced, which may still hold requests. Raises RipienoError as `offered`.
        """
        made = self.offered(engine.bundle, name)
        before, line = self.lines.get(name), Line(engine)
        kept = {n: m for n, m in self.by_name.items() if m.line is not before}
        for signature in made:
            tally = self.by_name[signature.name].tally if signature.name in self.by_name else Tally()
            kept[signature.name] = Model(signature, line, None if signature.name == name else signature.members, tally)
        self.by_name, self.lines = kept, {**self.lines, name: line}
        self.by_path = {f"/v2/models/{one}/infer".encode(): one for one in kept}
        return before

    def offered(self, bundle: Bundle, name: str) -> list[Signature]:
        """What `bundle` would offer as `name`: its ensemble and its members.

        Raises RipienoError when two models would have one name: a member's may be that of an ensemble.
        """
        made = signatures(bundle, prefix="" if name == ENSEMBLE else name, max_samples=self.max_samples)
        others = [n for n, m in self.by_name.items() if m.line is not self.lines.get(name)]
        for again, count in Counter([*others, *(s.name for s in made)]).items():
            if count > 1:
                raise RipienoError(
                    f"two models would be called {again!r}, one of them of {bundle.path}: "
                    "serve the bundle as NAME=FOLDER, by another NAME"
                )
        return made

    def ready(self) -> bool:
        """Whether every engine answers."""
        return bool(self.lines) and all(line.engine.ready for line in self.lines.values())

    def names(self) -> Mapping[str, bool]:
        """Whether each model is ready."""
        return {name: model.line.engine.ready for name, model in self.by_name.items()}

    def find(self, name: str, version: str = VERSION) -> Model:
        """A model. Raises RefusedError (404) that says which there are."""
        model = self.by_name.get(name)
        if model is None:
            known = ", ".join(list(self.by_name)[:8])
            raise RefusedError(404, f"no model {name[:80]!r}; there are: {known}")
        if version not in (VERSION, ""):
            raise RefusedError(404, f"model {name!r} has version {VERSION} only, not {version[:20]!r}")
        return model

    @contextmanager
    def held(self, name: str, version: str = VERSION) -> Iterator[Model]:
        """A model whose engine stays open while the block runs. Raises RefusedError as `find`."""
        model = self.find(name, version)
        model.line.users += 1
        try:
            yield model
        finally:
            model.line.users -= 1
