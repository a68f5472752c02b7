"""Source -> the run's data set: prepared once, and compared with what a later start brings."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.data import load_dataset, open_dataset
from ripieno.data.adapters import ExternalData, external_fingerprint, is_external_dataset
from ripieno.data.fingerprint import Fingerprint, fingerprint
from ripieno.data.walk import shown
from ripieno.errors import DataError, SearchError
from ripieno.library import Library
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.types import Dataset, Metric

DataSource = str | Path | Dataset | tuple[NDArray[Any], NDArray[Any]] | ExternalData
DEFAULTS: dict[str, Any] = {
    "size": None,
    "split": [0.72, 0.08, 0.20],
    "seed": 0,
    "skip_bad": False,
    "metric": "accuracy",
}
"""How a data set is made where nothing is said of it."""
SEEN = 256
"""Images, at most, that arrays are called by."""


def prepare(
    data: DataSource | None,
    library: Library,
    size: int | None = None,
    split: Sequence[float] | None = None,
    seed: int | None = None,
    metric: Metric | None = None,
    skip_bad: bool | None = None,
    progress: ProgressFunction = no_progress,
    notes: list[str] | None = None,
) -> Dataset:
    """The run's memory-mapped data set, made from `data` unless the run has it already.

    What is None is as the run has it, or as `DEFAULTS` says. Data that were moved or copied are the same data; the run
    needs none once it has its own. Raises SearchError that shows both values when the run was made from other data or
    otherwise; DataError when there are no data; RipienoError when another process is making the data set.
    """
    given = {"size": size, "split": split and list(split), "seed": seed, "skip_bad": skip_bad, "metric": metric}
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    record = library.dataset_path / "source.json"
    if record.exists():
        kept = files.read_json(record, dict[str, Any])
        _check_options(library, DEFAULTS | kept, asked)
        if data is not None:
            _check_source(library, data, kept, functools.partial(progress, "comparing the data with the run's"), notes)
        return open_dataset(library.dataset_path)
    if data is None:
        raise DataError(
            f"{library.path} holds no data to go on with: give some, as in `ripieno tune images --run {library.path}`"
        )
    if isinstance(data, str | Path) and Path(data).resolve() == library.path.resolve():
        raise DataError(f"{library.path} is the folder of the data and of the run: give the run another with --run")
    options = DEFAULTS | asked
    with _dataset_lock(library):
        told = functools.partial(progress, "reading images")
        dataset = load_dataset(data, **options, progress=told, notes=notes, folder=library.dataset_path)
        made = fingerprint(data, progress=functools.partial(progress, "taking the data's fingerprint"))
        files.write_json(record, {"source": _source_fingerprint(data), **options, "fingerprint": made})
    return dataset


def kept_seed(library: Library) -> int | None:
    """The seed that the run's data set was split by; None when the run has no data set of its making."""
    record = library.dataset_path / "source.json"
    return files.read_json(record, dict[str, Any]).get("seed") if record.exists() else None


def _check_options(library: Library, kept: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differing = [name for name in asked if kept[name] != asked[name]]
    if differing:
        had, wants = (" and ".join(f"{n} {_short(v[n])}" for n in differing) for v in (kept, asked))
        mend = f"leave {' and '.join(differing)} out to go on, or use another folder with --run"
        raise SearchError(f"{library.path} holds a data set made with {had}, asked is {wants}: {mend}")


def _check_source(
    library: Library,
    data: DataSource,
    kept: Mapping[str, Any],
    progress: Callable[[int, int], None],
    notes: list[str] | None,
) -> None:
    """Raise SearchError unless `data` are what the run's data set was made from, wherever they lie now."""
    source, go_on = kept.get("source"), f"leave the data out to go on with what the run holds (--run {library.path})"
    if isinstance(data, str | Path):
        path = Path(data)
        if path.resolve() in (library.path.resolve(), library.dataset_path.resolve()):
            return  # the run's own
        if not path.exists() and _source_fingerprint(data) == source:
            if notes is not None:
                notes.append(f"{shown(path)} is no longer there: the search goes on with the data that the run holds")
            return
        if not path.exists():
            raise DataError(f"{shown(path)} does not exist, and {library.path} was made from {source}: {go_on}")
    elif isinstance(data, Dataset) and data.path is not None and data.path.resolve() == library.dataset_path.resolve():
        return
    if "fingerprint" not in kept:  # of an older version, the oldest of which did not look at the images
        if source not in (_source_fingerprint(data), _source_fingerprint(data, images=False)):
            raise SearchError(f"{library.path} was made from {source}, not from {_source_fingerprint(data)}: {go_on}")
        return
    before = Fingerprint(**kept["fingerprint"])
    now = fingerprint(data, before, progress)
    if now.digest != before.digest:
        moved = "" if _source_fingerprint(data) == source or not isinstance(data, str | Path) else f" of {source}"
        held = f"{_called(data)} holds other data ({now}) than {library.path} was made from ({before}{moved})"
        raise SearchError(f"{held}: {go_on}, or use another folder for another run")


def _called(data: DataSource) -> str:
    return shown(Path(data)) if isinstance(data, str | Path) else f"the {type(data).__name__} given"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


@contextmanager
def _dataset_lock(library: Library) -> Iterator[None]:
    """Hold the run while its data set is made: two at once would mix theirs. Bad data leave no folder behind."""
    lock = library.path / "lock"
    try:
        with files.locked(lock, "another search"):
            yield
    except DataError:
        with suppress(OSError):
            lock.unlink()
            library.path.rmdir()
        raise


def _source_fingerprint(data: DataSource, images: bool = True) -> str:
    """What a source is called in the run's record: its path, or checksums of arrays.

    Without `images` as records of older versions say it, which counted the labels only.
    """
    if isinstance(data, str | Path):
        return shown(Path(data).resolve())
    if isinstance(data, Mapping) and not is_external_dataset(data):
        return "; ".join(f"{name}: {_source_fingerprint(part, images)}" for name, part in data.items())
    if is_external_dataset(data):
        return external_fingerprint(data, images)
    arrays: Any = (data.images, data.labels) if isinstance(data, Dataset) else data
    try:
        pixels, labels = arrays
        said = f"{len(labels)} samples in arrays, labels' crc32 {zlib.crc32(np.asarray(labels).tobytes()):08x}"
        split = data.split if isinstance(data, Dataset) else None
        return f"{said}, images' {_checksum(np.asarray(pixels), split):08x}" if images else said
    except (TypeError, ValueError):  # no data: who reads it says so better
        return type(data).__name__


def _checksum(images: NDArray[Any], split: NDArray[Any] | None) -> int:
    """Of the arrays' form, some images spread over them, and the split when there is one."""
    form = zlib.crc32(f"{images.shape} {images.dtype}".encode())
    rows = np.linspace(0, len(images), min(len(images), SEEN), endpoint=False).astype(np.int64)
    return zlib.crc32(b"" if split is None else split.tobytes(), zlib.crc32(images[rows].tobytes(), form))
