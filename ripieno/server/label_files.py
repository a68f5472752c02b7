"""Folder of files with labels of answered requests, which a server reads while they grow (`serve --watch --labels`)."""

from __future__ import annotations

import csv
import logging
import threading
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ripieno.errors import RipienoError
from ripieno.server.http_errors import HttpError
from ripieno.server.label_store import LabelRequest, LabelStore

log = logging.getLogger("ripieno.server")

SECONDS = 1.0
"""Time between two readings of the folder."""
BATCH = 1000
"""Labels that are taken at once."""
MOST_BYTES = 16 << 20
"""Bytes of a file that are read at once."""


class ReadState(NamedTuple):
    """Part of a file that was read."""

    inode: int
    offset: int
    """of the first line that was not read"""
    lines: int
    header: tuple[str, ...]
    """of a CSV file"""


class LabelFolder:
    """Reader of the files NAME.csv and NAME.jsonl of a folder; whole lines are taken, in a thread.

    A CSV file begins with the header request,target or request,target,index; a line of NAME.jsonl is an object with
    these keys. Raises RipienoError where the folder cannot be made.
    """

    def __init__(self, folder: Path, store: LabelStore) -> None:
        self.folder, self.store = folder, store
        self._read: dict[Path, ReadState] = {}
        self._failed: set[Path] = set()
        self._closed = threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RipienoError(f"labels {str(folder)!r} is no folder ({error.strerror}). Pass a folder.") from error
        self._thread = threading.Thread(target=self._run, name="ripieno-labels", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def read(self) -> None:
        """Take the lines that came since the last call; labels that cannot be taken are logged, a line a file."""
        for path in sorted(self.folder.iterdir()):
            if path.suffix.lower() in (".csv", ".jsonl") and not path.name.startswith("."):
                try:
                    while self._read_part(path):
                        pass
                except (OSError, UnicodeDecodeError) as error:
                    if path not in self._failed:
                        log.warning("labels of %s are not read: %s", path, error)
                    self._failed.add(path)

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self.read()
            except Exception as error:
                log.warning("labels of %s are not read: %s", self.folder, error)
            self._closed.wait(SECONDS)

    def _read_part(self, path: Path) -> bool:
        """Take the next whole lines of a file; return whether more may be there."""
        with open(path, "rb") as file:
            found = path.stat()
            state = self._read.get(path, ReadState(found.st_ino, 0, 0, ()))
            if state.inode != found.st_ino or found.st_size < state.offset:  # another file has the name now
                state = ReadState(found.st_ino, 0, 0, ())
            file.seek(state.offset)
            data = file.read(MOST_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return False
        lines = whole.decode("utf-8-sig" if not state.offset else "utf-8").splitlines()
        header = state.header
        if path.suffix.lower() == ".csv" and not header:
            header = tuple(name.strip() for name in lines[0].split(","))
        self._read[path] = ReadState(state.inode, state.offset + len(whole), state.lines + len(lines), header)
        self._take(path, lines, state, header)
        return len(data) == MOST_BYTES

    def _take(self, path: Path, lines: list[str], state: ReadState, header: tuple[str, ...]) -> None:
        labels: list[tuple[int, LabelRequest]] = []
        refused: list[tuple[int, str]] = []
        for number, line in enumerate(lines, state.lines + 1):
            if not line.strip() or (header and number == 1):
                continue
            try:
                labels.append((number, self._label(line, header)))
            except (msgspec.DecodeError, ValueError, RecursionError, csv.Error) as error:
                refused.append((number, str(error)))
        for begin in range(0, len(labels), BATCH):
            batch = labels[begin : begin + BATCH]
            try:
                self.store.take([label for _, label in batch])
            except HttpError:
                for number, label in batch:  # those that can be taken are
                    try:
                        self.store.take([label])
                    except HttpError as error:
                        refused.append((number, str(error)))
        if refused:
            number, text = min(refused)
            count, total = len(refused), len(labels) + sum(1 for n, _ in refused if n not in dict(labels))
            log.warning("%d of %d labels of %s are not taken; the first, line %d: %s", count, total, path, number, text)

    def _label(self, line: str, header: tuple[str, ...]) -> LabelRequest:
        if not header:
            return msgspec.json.decode(line, type=LabelRequest)
        if sorted(header) not in (["request", "target"], ["index", "request", "target"]):
            raise ValueError("expected the header request,target or request,target,index")
        values = next(csv.reader([line]))
        if len(values) != len(header):
            raise ValueError(f"there are {len(values)} values; expected {len(header)}")
        row = dict(zip(header, values, strict=True))
        return LabelRequest(row["request"], self._value(row["target"]), int(row.get("index") or 0))

    def _value(self, text: str) -> Any:
        """Return a target of a CSV file: the name of a class as it is, else JSON, else text."""
        if text in self.store.task.names:
            return text if self.store.kind.name != "multilabel" else [text]
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
