"""Folder in which a server keeps recent inputs and their labels, within a limit of bytes (`serve --watch --keep`)."""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from ripieno import files
from ripieno.data.kept_samples import LABELS, RECORD, KeptRecord, LabelRecord, read_labels_file, segments
from ripieno.errors import LibraryError, RipienoError
from ripieno.server.watcher import WatchedRequest
from ripieno.types import Bundle

log = logging.getLogger("ripieno.server")

SEGMENT_SAMPLES = 256
"""Samples of a segment, unless it waits for longer."""
SEGMENT_SECONDS = 2.0
"""Seconds after which what waits is written."""
SEGMENT_SHARE = 8
"""Bytes that are kept, relative to those of the largest segment."""


class KeptFolder:
    """Writer of a folder of kept samples; called in the watcher's thread, and by the store of labels.

    Raises RipienoError where the folder cannot be written, or holds the samples of another model.
    """

    def __init__(self, folder: Path, most: int, bundle: Bundle, name: str) -> None:
        self.folder, self.most = folder, most
        self.failed = False
        """True once the disk was full: nothing is kept any more"""
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
        elif any(folder.iterdir()):
            raise RipienoError(f"{folder} holds other files. Keep in an empty folder.")
        files.write_json(folder / RECORD, record)
        self._next = max((int(path.stem) for path in segments(folder)), default=0) + 1
        self._waiting: list[WatchedRequest] = []
        self._samples = self._bytes = 0
        self._since = 0.0
        self._lock = threading.RLock()

    def add(self, request: WatchedRequest) -> None:
        """Keep a request; a segment is written when it is full, or old enough at the next request."""
        if self.failed or not request.id:
            return
        with self._lock:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(request)
            self._samples += len(request.inputs)
            self._bytes += request.inputs.nbytes
            full = self._samples >= SEGMENT_SAMPLES or self._bytes * SEGMENT_SHARE >= self.most
            if full or time.monotonic() - self._since >= SEGMENT_SECONDS:
                self.flush()

    def flush(self) -> None:
        """Write what waits as a segment, and remove the oldest segments beyond the limit."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting or self.failed:
            return
        waiting, self._waiting = self._waiting, []
        self._samples = self._bytes = 0
        content = io.BytesIO()
        np.savez(
            content,
            inputs=np.concatenate([request.inputs for request in waiting]),
            requests=np.concatenate([np.repeat(request.id, len(request.inputs)) for request in waiting]),
            indices=np.concatenate([np.arange(len(request.inputs)) for request in waiting]),
        )
        self._try(lambda: files.write_bytes(self.folder / f"{self._next:010d}.npz", content.getvalue()))
        self._next += 1
        kept = segments(self.folder)
        sizes = [path.stat().st_size for path in kept]
        while len(kept) > 1 and sum(sizes) > self.most:
            files.remove_file(kept.pop(0))
            sizes.pop(0)

    def labels(self) -> list[LabelRecord]:
        """Return the labels of earlier starts."""
        return list(read_labels_file(self.folder))

    def add_labels(self, records: list[LabelRecord]) -> None:
        """Append labels to the journal, and write the samples that wait, which they may be of."""
        if self.failed:
            return
        self.flush()
        lines = b"".join(msgspec.json.encode(record) + b"\n" for record in records)

        def append() -> None:
            path = self.folder / LABELS
            cut_short = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
            with open(path, "ab") as file:
                file.write(b"\n" * cut_short + lines)

        self._try(append)

    def _try(self, write: Callable[[], object]) -> None:
        """Call `write`; where the disk is full or fails, say so once, and keep nothing more."""
        try:
            write()
        except (OSError, RipienoError) as error:
            self.failed = True
            log.warning("nothing more is kept in %s: %s. Watching goes on.", self.folder, error)
