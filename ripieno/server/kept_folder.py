"""Folder in which a server keeps recent inputs and their labels, within a limit of bytes (`serve --watch --keep`)."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data.kept_samples import (
    LABELS,
    RECORD,
    KeptRecord,
    LabelRecord,
    read_labels_file,
    read_segment,
    segments,
)
from ripieno.errors import DataError, LibraryError, RipienoError
from ripieno.server.watcher import WatchedRequest
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle

log = logging.getLogger("ripieno.server")

SEGMENT_SAMPLES = 256
"""Samples of a segment, unless it waits for longer."""
SEGMENT_SECONDS = 2.0
"""Seconds after which what waits is written."""
SEGMENT_SHARE = 8
"""Bytes that are kept, relative to those of the largest segment."""
MOST_LABELS = 100_000
"""Labels that are known; the journal has at most twice as many."""
LOCK = ".lock"


class KeptAnswer(NamedTuple):
    """Answer to a request that is kept."""

    request: str
    client_id: str
    """as in `WatchedRequest`"""
    predictions: NDArray[np.float32]
    ensemble: str
    """as in `KeptFolder.ensemble`"""


class KeptFolder:
    """Writer of a folder of kept samples; called in the watcher's thread, and by the store of labels.

    Raises RipienoError where the folder cannot be written, is in use, or holds the samples of another model.
    """

    def __init__(self, folder: Path, most: int, bundle: Bundle, name: str) -> None:
        self.folder, self.most = folder, most
        self.failed = False
        """True once the disk was full: nothing is kept any more"""
        self.ensemble = ""
        """digest of the ensemble that answers now"""
        self._keeps_answers = not kind_of(bundle.task).is_pixelwise  # which take no labels, and more than the inputs
        record = KeptRecord(name, bundle.task, bundle.input)
        folder.mkdir(parents=True, exist_ok=True)
        files.check_writable(folder)
        if (folder / RECORD).exists():
            try:
                known = files.read_json(folder / RECORD, KeptRecord)
            except LibraryError as error:
                raise RipienoError(f"{error}. Keep in another folder.") from error
            if (known.task, known.input) != (record.task, record.input):
                raise RipienoError(f"{folder} keeps samples of another task or shape. Keep in another folder.")
        elif any(path.name != LOCK for path in folder.iterdir()):
            raise RipienoError(f"{folder} holds other files. Keep in an empty folder.")
        self._held = ExitStack()
        self._held.enter_context(files.locked(folder / LOCK, "another server"))
        files.write_json(folder / RECORD, record)
        self._sizes = {path: path.stat().st_size for path in segments(folder)}
        """bytes of the segments, the oldest first"""
        self._next = max((int(path.stem) for path in self._sizes), default=0) + 1
        self._lines = len(read_labels_file(folder)[0])
        self._waiting: list[WatchedRequest] = []
        self._samples = self._bytes = 0
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()

    def add(self, request: WatchedRequest) -> None:
        """Keep a request; a segment is written when it is full, or old enough. Larger ones than the limit are not."""
        with self._lock:
            if self.failed or not request.id or request.bytes > self.most:
                return
            if not self._waiting:
                self._timer = threading.Timer(SEGMENT_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()
            self._waiting.append(request)
            self._samples += len(request.inputs)
            self._bytes += request.bytes
            if self._samples >= SEGMENT_SAMPLES or self._bytes * SEGMENT_SHARE >= self.most:
                self.flush()

    def flush(self) -> None:
        """Write what waits as a segment; remove the oldest segments first where it would exceed the limit."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            waiting, self._waiting = self._waiting, []
            self._samples = self._bytes = 0
            if waiting and not self.failed:
                self._try(lambda: self._write(_segment(waiting, self.ensemble, self._keeps_answers)))

    def close(self) -> None:
        """Write what waits, and let another server use the folder."""
        self.flush()
        self._held.close()

    def answers(self, most: int, most_bytes: int) -> Iterator[KeptAnswer]:
        """Yield the newest kept answers, the oldest of them first; broken segments are logged.

        They have about `most` samples and `most_bytes` bytes of predictions at most.
        """
        names = ("requests", "clients", "indices", "predictions", "ensemble")
        taken: list[list[NDArray[np.generic]]] = []
        samples = size = 0
        for path in reversed(self._sizes):
            if samples >= most or size >= most_bytes:
                break
            try:
                held = read_segment(path, *names)
            except DataError as error:
                log.warning("%s", error)
                continue
            if held is not None:
                taken.append(held)
                samples += len(held[0])
                size += held[3].nbytes
        for requests, clients, indices, predictions, ensemble in reversed(taken):
            begins = np.flatnonzero(indices == 0)
            for begin, end in zip(begins, [*begins[1:], len(requests)], strict=True):
                yield KeptAnswer(
                    str(requests[begin]),
                    str(clients[begin]),
                    predictions[begin:end].astype(np.float32, copy=False),
                    str(ensemble),
                )

    def labels(self) -> list[LabelRecord]:
        """Return the labels of earlier starts."""
        return read_labels_file(self.folder)[0]

    def add_labels(self, records: Sequence[LabelRecord]) -> None:
        """Append labels to the journal, and write the samples that wait, which they may be of."""
        with self._lock:
            self.flush()
            if not self.failed:
                self._try(lambda: self._append(records))

    def _append(self, records: Sequence[LabelRecord]) -> None:
        path = self.folder / LABELS
        with open(path, "a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)  # a kill may have cut a line short
            file.write(b"\n" * (end > 0 and file.read(1) != b"\n") + _lines(records))
            file.flush()
            files.to_disk(file.fileno())
        self._lines += len(records)
        if self._lines > 2 * MOST_LABELS:
            newest = self.labels()[-MOST_LABELS:]
            files.write_bytes(path, _lines(newest))
            self._lines = len(newest)

    def _write(self, content: bytes) -> None:
        while self._sizes and sum(self._sizes.values()) + len(content) > self.most:
            oldest = next(iter(self._sizes))
            files.remove_file(oldest)
            del self._sizes[oldest]
        if len(content) <= self.most:
            path = self.folder / f"{self._next:010d}.npz"
            files.write_bytes(path, content)
            self._sizes[path] = len(content)
            self._next += 1

    def _try(self, write: Callable[[], object]) -> None:
        """Call `write`; where the disk is full or fails, say so once, and keep nothing more."""
        try:
            write()
        except (OSError, RipienoError) as error:
            self.failed = True
            log.warning("nothing more is kept in %s: %s. Watching goes on.", self.folder, error)


def _lines(records: Sequence[LabelRecord]) -> bytes:
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def _segment(requests: Sequence[WatchedRequest], ensemble: str, with_answers: bool) -> bytes:
    """Return the file of a segment: whole requests, one after the other."""
    counts = [len(request.inputs) for request in requests]
    arrays: dict[str, Any] = {
        "inputs": np.concatenate([request.inputs for request in requests]),
        "requests": np.repeat([request.id for request in requests], counts),
        "indices": np.concatenate([np.arange(count) for count in counts]),
    }
    if with_answers:
        arrays["clients"] = np.repeat([request.client_id for request in requests], counts)
        arrays["predictions"] = np.concatenate([request.predictions for request in requests])
        arrays["ensemble"] = np.array(ensemble)
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
