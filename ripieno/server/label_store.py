"""Labels that arrive after the answers: they are matched with these, and tell how well a served ensemble does now."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno.data.kept_samples import LabelRecord
from ripieno.errors import DataError
from ripieno.selection.losses import losses_of, sample_losses
from ripieno.server.http_errors import HttpError, bad_request
from ripieno.server.kept_folder import KeptFolder
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle

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
    """id of the answered request, that of its header `x-request-id`"""
    target: Any
    """of classes a name or its index, of labels names or 0 and 1, of values numbers"""
    index: int = 0
    """place of the sample in its request"""


class LabelsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body with several labels."""

    labels: list[LabelRequest]


class LabelStore:
    """Answers of `bundle` that labels may come for, and the labels; thread-safe. `kept` journals them."""

    def __init__(self, bundle: Bundle, kept: KeptFolder | None = None) -> None:
        self.task, self.kind, self.kept = bundle.task, kind_of(bundle.task), kept
        self.loss = losses_of(self.kind)[0]
        self.thresholds = bundle.ensemble.thresholds
        self._answers: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._samples = self._bytes = 0
        self._lock = threading.Lock()
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)
        """(error, loss) of each labelled answer"""
        self.known: dict[tuple[str, int], Any] = {}
        """targets by request and index, as they are journalled"""
        for label in kept.labels() if kept is not None else ():
            self.known[label.request, label.index] = label.target

    def remember(self, name: str, predictions: NDArray[np.float32]) -> None:
        """Remember an answer; the oldest ones are forgotten beyond the limits."""
        if not name or self.kind.is_pixelwise:
            return
        with self._lock:
            if (old := self._answers.pop(name, None)) is not None:  # a client may send an id twice
                self._samples -= len(old)
                self._bytes -= old.nbytes
            self._answers[name] = predictions
            self._samples += len(predictions)
            self._bytes += predictions.nbytes
            while self._answers and (self._samples > ANSWERS or self._bytes > ANSWER_BYTES):
                _, old = self._answers.popitem(last=False)
                self._samples -= len(old)
                self._bytes -= old.nbytes

    def add(self, body: bytes | bytearray) -> dict[str, Any]:
        """Take the labels of a request's body, all or none; return the document of the response.

        Raises HttpError: 400 for a body or target that cannot be used, 404 for a request that was not answered or is
        forgotten, 409 for another target than one that is known.
        """
        labels = _decode(body)
        if self.kind.is_pixelwise:
            raise bad_request(
                "Labels of pixels are masks, which are not taken here. Give them in a folder to reselect."
            )
        with self._lock:
            new: dict[tuple[str, int], Any] = {}
            for label in labels:
                place, target = (label.request, label.index), self._target(label)
                self._check(label, target, new.get(place, self.known.get(place)))
                if place not in self.known:
                    new[place] = target
            for (request, index), target in new.items():
                self._score(request, index, target)
            self.known |= new
            if self.kept is not None and new:
                self.kept.add_labels([LabelRecord(*place, target) for place, target in new.items()])
        return {"accepted": len(new), "repeated": len(labels) - len(new), "live": self.live()}

    def live(self) -> dict[str, Any]:
        """Return the figures of the latest labelled answers, with intervals of 95 %: Wilson's for a share."""
        with self._lock:
            rows, total = np.array(self._recent, np.float64).reshape(-1, 2), len(self.known)
        count = len(rows)
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
        value, names = label.target, self.task.names
        if self.kind.name == "classification" and isinstance(value, str):
            if value not in names:
                raise bad_request(f"target {value[:80]!r} is no class of the model: {', '.join(names[:10])}.")
            value = names.index(value)
        if self.kind.name == "multilabel" and isinstance(value, list) and all(isinstance(v, str) for v in value):
            if unknown := [v for v in value if v not in names]:
                raise bad_request(f"target {unknown[0][:80]!r} is no label of the model: {', '.join(names[:10])}.")
            value = [int(name in value) for name in names]
        if self.kind.name == "regression" and isinstance(value, int | float) and not isinstance(value, bool):
            value = [value]
        try:
            return self.kind.read_targets(np.asarray([value]), self.task, "target", DataError)[0].tolist()
        except (DataError, ValueError, TypeError) as error:
            raise bad_request(f"target {value!r:.80} does not fit the model: {error}.") from error

    def _check(self, label: LabelRequest, target: Any, known: Any) -> None:
        """Raise HttpError (404, 409) unless the label is of a known sample, and the same as before."""
        if known is not None and known != target:
            raise HttpError(
                409, f"request {label.request[:80]!r}, index {label.index} has the target {known!r:.80} already."
            )
        if known is not None:
            return
        answer = self._answers.get(label.request)
        if answer is None:
            raise HttpError(404, f"request {label.request[:80]!r} was not answered here, or is forgotten.")
        if not 0 <= label.index < len(answer):
            raise HttpError(
                404, f"request {label.request[:80]!r} has {len(answer)} samples, and no index {label.index}."
            )

    def _score(self, request: str, index: int, target: Any) -> None:
        if request not in self._answers:
            return
        predictions = self._answers[request][index : index + 1]
        targets = self.kind.read_targets(np.asarray([target]), self.task, "target", DataError)
        error = float(self.kind.errors(predictions, targets, self.thresholds)[0])
        losses = sample_losses(self.loss, predictions, targets)
        self._recent.append((error, error if losses is None else float(losses[0])))


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
