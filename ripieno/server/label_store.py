"""Labels that arrive after the answers: they are matched with these, and tell how well a served ensemble does now."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.kept_samples import LabelRecord, SamplePlace, numbers_of, read_target
from ripieno.errors import DataError
from ripieno.selection.losses import losses_of, sample_losses
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.kept_folder import MOST_LABELS, KeptFolder
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle

log = logging.getLogger("ripieno.server")

ANSWERS, ANSWER_BYTES = 100_000, 64 << 20
"""Answered samples, and bytes of their predictions, that are remembered for labels that come late."""
RECENT = 1000
"""Labelled answers that the live figures are of, the latest ones."""
MOST = 10_000
"""Labels of one request."""
Z = 1.96
"""Standard errors of an interval of 95 %."""


class LabelRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A label in the body of `POST /v2/models/M/labels`."""

    request: str
    """id of the answered request: that of its answer's header `x-request-id`, or the `id` in its body"""
    target: Any
    """of classes a name or its index, of labels names or 0 and 1, of values numbers"""
    index: int = 0
    """place of the sample in its request"""


class LabelsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body with several labels."""

    labels: list[LabelRequest]


class RememberedAnswer(NamedTuple):
    """Answer that labels may come for."""

    predictions: NDArray[np.float32]
    """(samples, *task.output)"""
    client_id: str
    """as in `WatchedRequest`"""
    ensemble: str
    """digest of the ensemble that answered"""


class LabelStore:
    """Answers of `bundle` that labels may come for, and the labels; thread-safe. `kept` journals them.

    The event loop waits for `_lock` only, which is free while labels are read, scored or written.
    """

    def __init__(self, bundle: Bundle, kept: KeptFolder | None = None) -> None:
        self.task, self.input, self.kind, self.kept = bundle.task, bundle.input, kind_of(bundle.task), kept
        self.loss = losses_of(self.kind)[0]
        self.resources = ExitStack()
        """what ends with the store"""
        self._answers: OrderedDict[str, RememberedAnswer] = OrderedDict()
        self._named: dict[str, set[str]] = {}
        """requests by the id in their body"""
        self._samples = self._bytes = 0
        self._lock, self._adding = threading.Lock(), threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        """(error, loss) of each labelled answer of the ensemble"""
        self.known: OrderedDict[SamplePlace, Any] = OrderedDict()
        """targets by request and index, as they are journalled"""
        self.answer_by(bundle)
        if kept is not None:
            self.resources.callback(kept.close)
            self._restore(kept)
        self.count = len(self.known)
        """labels that were taken"""

    def answer_by(self, bundle: Bundle) -> None:
        """Take answers of `bundle` from now on; the live figures start again where it has another ensemble."""
        digest = hashlib.blake2b(files.to_json(bundle.ensemble), digest_size=8).hexdigest()
        with self._lock:
            self.ensemble, self.thresholds = digest, bundle.ensemble.thresholds
            self._recent.clear()
        if self.kept is not None:
            self.kept.ensemble = digest

    def close(self) -> None:
        """Stop reading labels, and write what waits to be kept."""
        self.resources.close()

    def remember(self, name: str, predictions: NDArray[np.float32], client_id: str = "") -> None:
        """Remember an answer; the oldest ones are forgotten beyond the limits."""
        if name and not self.kind.is_pixelwise:
            with self._lock:
                self._remember(name, RememberedAnswer(predictions, client_id, self.ensemble))

    def _remember(self, name: str, answer: RememberedAnswer) -> None:
        if name in self._answers:  # a client may send an id twice
            self._forget(name)
        self._answers[name] = answer
        if answer.client_id:
            self._named.setdefault(answer.client_id, set()).add(name)
        self._samples += len(answer.predictions)
        self._bytes += answer.predictions.nbytes
        while self._answers and (self._samples > ANSWERS or self._bytes > ANSWER_BYTES):
            self._forget(next(iter(self._answers)))

    def _forget(self, name: str) -> None:
        old = self._answers.pop(name)
        self._samples -= len(old.predictions)
        self._bytes -= old.predictions.nbytes
        if old.client_id:
            names = self._named[old.client_id]
            names.discard(name)
            if not names:
                del self._named[old.client_id]

    def _restore(self, kept: KeptFolder) -> None:
        """Take the answers and labels that were kept before this start."""
        for label in kept.labels()[-MOST_LABELS:]:
            try:
                self.known[label.request, label.index] = numbers_of(label.target, self.task)
            except DataError as error:
                log.warning("a label in %s is left out: %s", kept.folder, error)
        for answer in kept.answers(ANSWERS, ANSWER_BYTES):
            self._remember(answer.request, RememberedAnswer(answer.predictions, answer.client_id, answer.ensemble))
        labelled = {p: t for p, t in self.known.items() if self._answer(p) is not None}
        latest = dict(list(labelled.items())[-RECENT:])
        try:
            self._recent += self._scores(latest, {place: self._answer(place) for place in latest})
        except (DataError, ValueError, TypeError, IndexError) as error:  # written by hand
            log.warning("the live figures start again: a label in %s is no target (%s)", kept.folder, error)

    def _answer(self, place: SamplePlace) -> RememberedAnswer | None:
        """Return the answer with the sample at `place`; None where it is not known."""
        answer = self._answers.get(place[0])
        return answer if answer is not None and 0 <= place[1] < len(answer.predictions) else None

    def add(self, body: bytes | bytearray) -> dict[str, Any]:
        """Take the labels of a request's body, all or none; return the document of the response.

        Raises HttpError: 400 for a body or target that cannot be used, 404 for a request that was not answered or is
        forgotten, 409 for another target than one that is known, and for an id that several requests have.
        """
        labels = _decode(body)
        new = self.take(labels)
        return {"accepted": new, "repeated": len(labels) - new, "live": self.live()}

    def take(self, labels: Sequence[LabelRequest]) -> int:
        """Take labels, all or none; return how many were not known. Raises HttpError as `add`."""
        if self.kind.is_pixelwise:
            raise bad_request(
                "Labels of pixels are masks, which are not taken here. Give them in a folder to reselect."
            )
        targets = [self._target(label) for label in labels]
        new: dict[SamplePlace, Any] = {}
        with self._adding:
            with self._lock:
                for label, target in zip(labels, targets, strict=True):
                    place = (self._request(label.request, label.index), label.index)
                    known = new.get(place, self.known.get(place))
                    self._check(label, place, target, known)
                    if known is None:
                        new[place] = target
                answers = {place: self._answers[place[0]] for place in new}
            scores = self._scores(new, answers)
            if self.kept is not None and new:
                self.kept.add_labels([LabelRecord(name, target, index) for (name, index), target in new.items()])
            with self._lock:
                self.known.update(new)
                self.count += len(new)
                while len(self.known) > MOST_LABELS:
                    self.known.popitem(last=False)
                self._recent += scores
        return len(new)

    def live(self) -> dict[str, Any]:
        """Return the figures of the latest labelled answers, with intervals of 95 %: Wilson's for a share."""
        with self._lock:
            scores, total = list(self._recent), self.count
        count = len(scores)
        rows = np.array(scores, np.float64).reshape(-1, 2)
        document: dict[str, Any] = {"labels": total, "samples": count}
        if not count:
            return document
        losses = rows[:, 1]
        error = float(losses.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
        mean = float(losses.mean())
        document |= {"loss": mean, "loss_low": mean - Z * error, "loss_high": mean + Z * error, "loss_name": self.loss}
        if self.kind.activation == "softmax":
            low, high = wilson(1 - float(rows[:, 0].mean()), count)
            document |= {"accuracy": 1 - float(rows[:, 0].mean()), "accuracy_low": low, "accuracy_high": high}
        return document

    def _target(self, label: LabelRequest) -> Any:
        """Return the target as it is journalled: plain numbers. Raises HttpError (400) where the task has none such."""
        try:
            return read_target(label.target, self.task)
        except DataError as error:
            raise bad_request(f"{error}.") from error

    def _request(self, name: str, index: int) -> str:
        """Return the id in the header of the request that is meant. Raises HttpError (409) where several may be."""
        if name in self._answers or (name, index) in self.known:
            return name
        names = self._named.get(name, {name})
        if len(names) > 1:
            raise HttpError(
                409,
                f"{len(names)} requests have the id {name[:80]!r}. Label them by x-request-id, a header of answers.",
            )
        return next(iter(names))

    def _check(self, label: LabelRequest, place: SamplePlace, target: Any, known: Any) -> None:
        """Raise HttpError (404, 409) unless the label is of a known sample, and the same as before."""
        if known is not None:
            if known != target:
                raise HttpError(
                    409, f"request {label.request[:80]!r}, index {label.index} has the target {known!r:.80} already."
                )
            return
        answer = self._answers.get(place[0])
        if answer is None:
            raise HttpError(404, f"request {label.request[:80]!r} was not answered here, or is forgotten.")
        if self._answer(place) is None:
            held = f"request {label.request[:80]!r} has {len(answer.predictions)} samples"
            raise HttpError(404, f"{held}, and no index {label.index}.")

    def _scores(
        self, targets: Mapping[SamplePlace, Any], answers: Mapping[SamplePlace, RememberedAnswer | None]
    ) -> list[tuple[float, float]]:
        """Return (error, loss) of each answer of the ensemble that is served now."""
        found: list[tuple[NDArray[np.float32], Any]] = []
        for place, target in targets.items():
            answer = answers[place]
            if answer is not None and answer.ensemble == self.ensemble:
                found.append((answer.predictions[place[1]], target))
        if not found:
            return []
        predictions = np.stack([predicted for predicted, _ in found])
        given = self.kind.read_targets(np.array([target for _, target in found]), self.task, "target", DataError)
        errors = self.kind.errors(predictions, given, self.thresholds)
        losses = sample_losses(self.loss, predictions, given)
        return list(zip(errors.tolist(), (errors if losses is None else losses).tolist(), strict=True))


def _decode(body: bytes | bytearray) -> list[LabelRequest]:
    """Return the labels of a body: one, or a list under `labels`. Raises HttpError (400)."""
    try:
        found = _labels_of(bytes(body))
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        form = '{"request": ID, "index": 0, "target": VALUE}'
        raise bad_request(
            f'Cannot parse the labels ({error}). Send {form}, or a list of such under "labels".'
        ) from None
    if not 1 <= len(found) <= MOST:
        raise bad_request(f"There are {len(found)} labels. Send 1 to {MOST:,} at a time.")
    return found


def _labels_of(body: bytes) -> list[LabelRequest]:
    plain = msgspec.json.decode(body)
    if isinstance(plain, dict) and "labels" in plain:
        return msgspec.convert(plain, LabelsBody).labels
    return [msgspec.convert(plain, LabelRequest)]


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 % of a share of `count` samples."""
    centre = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * np.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))
