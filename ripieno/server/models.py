"""Models of a server: ensembles, and each of their members alone; the course of a request to one of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ripieno.data.table_encoding import count_unseen
from ripieno.errors import EngineBusyError, EngineError, EngineTimeoutError, RipienoError
from ripieno.server.event_loop import run_in_worker
from ripieno.server.http_errors import HttpError, without_paths
from ripieno.server.kept_folder import KeptFolder
from ripieno.server.label_files import LabelFolder
from ripieno.server.label_store import LabelStore
from ripieno.server.limits import Limits
from ripieno.server.oip_decode import Buffer, InferenceRequest, check_json, read_request
from ripieno.server.oip_encode import check_size
from ripieno.server.served_model_stats import ServedModelStats
from ripieno.server.signature import ENSEMBLE, VERSION, ModelSignature, signatures
from ripieno.server.tracing import steps
from ripieno.server.watcher import DriftWatcher, WatchedRequest, request_id
from ripieno.types import Bundle

if TYPE_CHECKING:
    from ripieno.engine.engine import Engine
    from ripieno.engine.inference_result import Answer
    from ripieno.server.replicas.router import ReplicaRouter

AnyEngine: TypeAlias = "Engine | ReplicaRouter"
"""An engine on this machine, or one over the nodes of a cluster."""
MOST_ID = 128
"""Characters of an id in the body of a request by which it may be labelled."""


@dataclass(eq=False)
class ServedEngine:
    """An engine, and the number of its requests in flight, counted from before their bodies are read."""

    engine: AnyEngine
    users: int = 0
    watcher: DriftWatcher | None = None
    """of the requests to the ensemble, where the server watches"""
    labels: LabelStore | None = None
    """of its answers, likewise"""

    def close_watcher(self) -> None:
        """Stop watching, and write what waits to be kept."""
        if self.watcher is not None:
            self.watcher.close()
        if self.labels is not None and self.labels.kept is not None:
            self.labels.kept.flush()


@dataclass
class Model:
    """A named model: an ensemble, or one of its members. As a context manager, it keeps its engine open.

    Both HTTP paths take the steps of a request here: `prepare`, `submit`, and `stats.answered` or `failed`.
    """

    signature: ModelSignature
    engine: ServedEngine
    member: tuple[str, ...] | None = None
    """the single member; None for the ensemble"""
    stats: ServedModelStats = field(default_factory=ServedModelStats)

    @property
    def watcher(self) -> DriftWatcher | None:
        """Watcher of its requests; None for a member, and where the server does not watch."""
        return None if self.member is not None else self.engine.watcher

    @property
    def labels(self) -> LabelStore | None:
        """Labels of its answers; None likewise."""
        return None if self.member is not None else self.engine.labels

    def __enter__(self) -> Model:
        self.engine.users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.users -= 1

    def prepare(self, body: Buffer, header_length: int | None, limits: Limits) -> tuple[InferenceRequest, int]:
        """Decode a body within `limits`; return the request and the approximate bytes of its response.

        Raises HttpError: 413 for too much JSON or too large a response, 400 for an invalid request.
        """
        check_json(len(body), header_length, limits.json)
        request = read_request(body, header_length, self.signature)
        return request, check_size(request, self.signature, limits.reply)

    def submit(self, request: InferenceRequest, timeout: float) -> Future[Answer]:
        """Submit to the engine without waiting for room. Raises as the engine's `submit`.

        With `partial`, the members that have finished within `timeout` seconds suffice.
        """
        names, uncertainty = request.names, self.signature.uncertainty
        needs = uncertainty.needs(names, request.coverage) if uncertainty else None
        # naming all members disables early exit, on demand and for what was fitted to answers of all members
        whole = self.member is None and (request.parameters.get("cascade") is False or needs is not None)
        return self.engine.engine.submit(
            request.images,
            self.signature.members if whole else self.member,
            spread="spread" in names or (needs is not None and needs.spread),
            each="members" in names,
            disagreement=(needs is not None and needs.disagreement)
            or (self.watcher is not None and self.watcher.wants_disagreement),
            deadline=timeout if request.partial else None,
            partial=request.partial,
            steps=steps.get(),
            block=False,
        )

    async def answer(self, request: InferenceRequest, timeout: float) -> Answer:
        """Predict within `timeout` seconds, or within the request's shorter timeout, and count the request.

        Cancelling the caller cancels the request. Raises HttpError as `failed`.
        """
        start = time.perf_counter()
        timeout = min(timeout, request.timeout or timeout)
        try:
            # a partial answer needs the engine's own deadline; this timeout is then only a backstop
            async with asyncio.timeout(timeout + (1.0 if request.partial else 0.0)):
                answer = await asyncio.wrap_future(self.submit(request, timeout))
        except (TimeoutError, EngineError) as error:
            raise self.failed(error, timeout, start) from error
        self.stats.answered(len(request.images), time.perf_counter() - start, answer.partial)
        self.watch(request, answer, request_id.get())
        if self.signature.input.columns:  # in a worker: a large request has millions of values
            self.stats.unseen.update(await run_in_worker(request.images.nbytes, self.unseen, request))
        if "abstain" in request.names:
            self.stats.abstained.update(await run_in_worker(answer.predictions.nbytes, self.abstained, request, answer))
        return answer

    def watch(self, request: InferenceRequest, answer: Answer, name: str) -> None:
        """Hand an answered request with the id `name` to the watcher, if there is one."""
        client_id = request.id if len(request.id) <= MOST_ID else ""
        if (watcher := self.watcher) is not None:
            watcher.submit(
                WatchedRequest(name, request.images, answer.predictions, answer.disagreement, answer.partial, client_id)
            )
        if (labels := self.labels) is not None:
            labels.remember(name, answer.predictions, client_id)

    def unseen(self, request: InferenceRequest) -> dict[str, int]:
        """Return the numbers of unseen categories in a request for rows of a table, by column."""
        columns = self.signature.input.columns
        return count_unseen(columns, request.images) if columns else {}

    def abstained(self, request: InferenceRequest, answer: Answer) -> dict[bool, int]:
        """Return the numbers of samples in a request for `abstain`, by its value."""
        if "abstain" not in request.names or self.signature.uncertainty is None:
            return {}
        abstained = int(self.signature.uncertainty.abstains(answer.predictions).sum())
        return {True: abstained, False: len(answer.predictions) - abstained}

    def failed(self, error: BaseException, timeout: float, start: float) -> HttpError:
        """Count a failed request, begun at `start`, and return its error.

        504 when the timeout expired, also while the request waited for room; 500 when the engine failed.
        """
        if isinstance(error, (TimeoutError, EngineTimeoutError, EngineBusyError)):
            message = f"Timeout: no answer within {timeout:g} s. Retry later, or send fewer samples."
            refusal = HttpError(504, message)
        elif isinstance(error, (EngineError, CancelledError)):
            message = without_paths(str(error), self.engine.engine.bundle.path)
            refusal = HttpError(500, message or "The request was cancelled.")
        else:
            refusal = HttpError(500, f"Internal server error: {type(error).__name__}")
        self.stats.failed(refusal.status, time.perf_counter() - start)
        return refusal

    def statistics(self) -> dict[str, object]:
        """Return the document of `GET /v2/models/M/stats`."""
        return self.stats.statistics(self.signature.name, VERSION)


class Models:
    """All models of a server by name. An engine can be replaced while requests are in flight."""

    def __init__(
        self,
        max_samples: int,
        watch: bool = False,
        keep: tuple[Path, int] | None = None,
        labels: Path | None = None,
        *,
        keeps_apart: bool = False,
    ) -> None:
        self.max_samples = max_samples
        self.keep, self.label_folder, self.keeps_apart = keep, labels, keeps_apart
        """folder and bytes of kept inputs, and folder of labels; each of several ensembles has its own folder in it"""
        self.watch = watch
        """whether requests to ensembles are watched"""
        self.by_name: dict[str, Model] = {}
        self.engines: dict[str, ServedEngine] = {}
        """by the name of the ensemble"""
        self.most_columns = 0
        """of a table that a model takes"""
        self.by_path: dict[bytes, str] = {}
        """names of models by the path of their inference endpoint"""

    def register(self, engine: AnyEngine, name: str = ENSEMBLE) -> ServedEngine | None:
        """Serve an engine's ensemble as `name`, from the next request on.

        Members are served by their ids, and as `name.ID` if the ensemble is not the default one. Returns the engine
        that it replaced, which may still have requests. Raises RipienoError as `signatures_of` and `DriftWatcher`.
        """
        added_signatures = self.signatures_of(engine.bundle, name)
        watcher = DriftWatcher(engine.bundle, name) if self.watch else None
        replaced = self.engines.get(name)
        labels = None if watcher is None else self._label_store(engine.bundle, name, replaced)
        if watcher is not None and labels is not None and labels.kept is not None:
            watcher.followers.append(labels.kept.add)
        added = ServedEngine(engine, watcher=watcher, labels=labels)
        models = {n: m for n, m in self.by_name.items() if m.engine is not replaced}
        for signature in added_signatures:
            stats = self.by_name[signature.name].stats if signature.name in self.by_name else ServedModelStats()
            member = None if signature.name == name else signature.members
            models[signature.name] = Model(signature, added, member, stats)
        self.by_name, self.engines = models, {**self.engines, name: added}
        self.by_path = {f"/v2/models/{model}/infer".encode(): model for model in models}
        self.most_columns = max(len(model.signature.input.columns) for model in models.values())
        return replaced

    def _label_store(self, bundle: Bundle, name: str, replaced: ServedEngine | None) -> LabelStore:
        """Return the store of labels of a bundle: that of the replaced one, whose requests may get labels yet."""
        before = None if replaced is None else replaced.labels
        if before is not None and before.task == bundle.task and before.input == bundle.input:
            before.answer_by(bundle)
            return before
        kept = None
        if self.keep is not None:
            folder, most = self.keep
            kept = KeptFolder(folder / name if self.keeps_apart else folder, most, bundle, name)
        store = LabelStore(bundle, kept)
        if self.label_folder is not None:
            files = LabelFolder(self.label_folder / name if self.keeps_apart else self.label_folder, store)
            files.start()
            store.resources.callback(files.close)
        return store

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

    @property
    def first(self) -> Model:
        """The ensemble of the first bundle, which is that of paths without the name of a model."""
        return self.by_name[next(iter(self.engines))]

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
