"""The models a server offers: an ensemble, and each of its members alone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ripieno.server.codec import Request
from ripieno.server.line import Asked, Line
from ripieno.server.refusal import RefusedError
from ripieno.server.signature import ENSEMBLE, VERSION, Signature, signatures

if TYPE_CHECKING:
    from ripieno.engine.answer import Answer


@dataclass
class Tally:
    """What a model answered so far; times are sums in nanoseconds."""

    requests: int = 0
    samples: int = 0
    seconds_ns: int = 0
    failures: int = 0
    failed_ns: int = 0
    last_ms: int = 0
    """Unix milliseconds of the last request"""

    def add(self, samples: int, ns: int, failed: bool) -> None:
        """Count one request that took `ns`."""
        self.last_ms = time.time_ns() // 1_000_000
        if failed:
            self.failures += 1
            self.failed_ns += ns
        else:
            self.requests += 1
            self.samples += samples
            self.seconds_ns += ns


@dataclass
class Model:
    """A model by its name: an ensemble, or one member of it."""

    signature: Signature
    line: Line
    alone: tuple[str, ...] | None = None
    """the member asked alone; None for the ensemble"""
    tally: Tally = field(default_factory=Tally)

    async def answer(self, request: Request, timeout: float) -> Answer:
        """Ask the engine, and count it. Raises RefusedError as `Line.ask`."""
        start = time.perf_counter_ns()
        failed = True
        names = {w.name for w in request.outputs}
        try:
            answer = await self.line.ask(
                request.images,
                self.alone,
                timeout,
                spread="spread" in names,
                each="members" in names,
                partial=request.parameters.get("partial") is True,
            )
            failed = False
            return answer
        finally:
            self.tally.add(len(request.images), time.perf_counter_ns() - start, failed)

    def statistics(self) -> dict[str, Any]:
        """`GET /v2/models/M/stats`, in Triton's words."""
        tally = self.tally

        def times(count: int, ns: int) -> dict[str, int]:
            return {"count": count, "ns": ns}

        ok = times(tally.requests, tally.seconds_ns)
        none = times(0, 0)
        return {
            "name": self.signature.name,
            "version": VERSION,
            "last_inference": tally.last_ms,
            "inference_count": tally.samples,
            "execution_count": tally.requests,
            "inference_stats": {
                "success": ok,
                "fail": times(tally.failures, tally.failed_ns),
                "queue": none,
                "compute_input": none,
                "compute_infer": ok,
                "compute_output": none,
                "cache_hit": none,
                "cache_miss": none,
            },
            "batch_stats": [],
        }


class Models:
    """All models of a server by name; `ready` once their engine answers."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.by_name = {m.signature.name: m for m in models}

    def ready(self) -> bool:
        """Whether the engines answer."""
        return all(m.line.engine.ready for m in self.by_name.values())

    def find(self, name: str, version: str = VERSION) -> Model:
        """A model. Raises RefusedError (404) that says which there are."""
        model = self.by_name.get(name)
        if model is None:
            known = ", ".join(list(self.by_name)[:8])
            raise RefusedError(404, f"no model {name[:80]!r}; there are: {known}")
        if version != VERSION:
            raise RefusedError(404, f"model {name!r} has version {VERSION} only, not {version[:20]!r}")
        return model


def models_of(engine: Asked, max_samples: int) -> Models:
    """The models one engine can answer as: `ensemble`, and each member by its id."""
    line = Line(engine)
    made = signatures(engine.bundle, max_samples=max_samples)
    return Models(Model(s, line, None if s.name == ENSEMBLE else s.members) for s in made)
