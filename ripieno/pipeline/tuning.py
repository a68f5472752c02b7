"""Data set -> library: the search, on the pool at hand."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ripieno import clock, files
from ripieno.data.brought import Brought, is_brought, named
from ripieno.durations import check_duration
from ripieno.errors import DataError, SearchError, need
from ripieno.library import Library
from ripieno.limits import sleep_while_waiting
from ripieno.notes import Notes
from ripieno.pipeline.places import Places, PoolName
from ripieno.pipeline.runs import Progress, quiet
from ripieno.types import Configuration, Dataset, Input, Job, Metric

if TYPE_CHECKING:
    from ripieno.search.progress import Snapshot
    from ripieno.search.settings import Promotion

Source = str | Path | Dataset | tuple[NDArray[Any], NDArray[Any]] | Brought
SEEN = 256
"""Images, at most, that tell arrays from others of the same labels."""


def tune(
    data: Source,
    run: str | Path = "run",
    *,
    hours: float | None = None,
    trials: int | None = None,
    epochs: int = 27,
    space: str = "auto",
    algorithm: str = "hyperband",
    eta: int = 3,
    seed: int = 0,
    slots: int | None = None,
    pool: PoolName = "local",
    device: str = "auto",
    per_device: int = 1,
    address: str = "local",
    cpus: float = 1.0,
    limit: float | None = None,
    family: str | None = None,
    size: int | None = None,
    split: tuple[float, float, float] = (0.72, 0.08, 0.20),
    metric: Metric = "accuracy",
    skip_bad: bool = False,
    promote: Promotion = "loss",
    budget: Mapping[str, float] | None = None,
    progress: Progress = quiet,
    notes: list[str] | None = None,
    watch: Callable[[Snapshot], None] | None = None,
) -> Library:
    """Search hyperparameters on `data` and keep every network trained in the folder `run` (section 2.1).

    Bounded by `hours`, by `trials`, or by both; one hour when neither is given. Called again with the same arguments it
    goes on where it was stopped, however it was stopped. Bounded by trials alone, its result depends on the seed only.
    The space is by default `resnet` on a GPU, `resnet-small` on a CPU. `family` (`module:function`) is code of yours to
    be run; one that only a space's file names is refused. `pool`, `device`, `slots` and the four after them
    say where trials train: see `Places`. Without `slots`, a profile decides how many trials share this machine, when it
    takes at most 2 % of `hours`: see `pipeline.packing`. `notes` gathers what to know of the data and of
    that, which is logged without it. `metric` is the score that is shown; trials are ranked by cross-entropy.

    With `promote` "ensemble" trials train on for what they add to the best ensemble under `budget`, in `flops` of a
    sample or in `parameters`: see `pipeline.promotion`. It made no difference where it was measured, so no command
    offers it; it stays for those who compare.

    Raises DataError for data that cannot be used, SearchError for settings that contradict the run's.
    """
    sleep_while_waiting()  # before PyTorch is loaded
    from ripieno.pipeline.packed import packed
    from ripieno.pipeline.promotion import ensemble_worth
    from ripieno.search import run_search
    from ripieno.search.settings import Settings
    from ripieno.search.space import find_space
    from ripieno.train import Task, train_job

    need("torch")
    from ripieno.models.build import FAMILIES

    notes = Notes() if notes is None else notes
    library = Library(run)
    places = Places(pool, device, slots, per_device, address, cpus, limit)
    on_gpu = places.on_gpu()
    found = find_space({True: "resnet", False: "resnet-small"}[on_gpu] if space == "auto" else space)
    if family:
        found = dataclasses.replace(found, family=family)
    elif found.family not in FAMILIES:
        own = found.family
        raise SearchError(
            f"space {space} names the family {own!r}: it must be {' or '.join(FAMILIES)}, or code of yours, which is "
            f"run only when you name it too: --family {own} (family=)"
        )
    if hours is None and trials is None:
        hours = 1.0
    if hours is not None:
        hours = check_duration(hours, "hours", unit=3600, error=SearchError)
    bounds = dict(budget or {})
    settings = Settings(found, algorithm, trials, epochs, eta, seed, promote=promote, budget=bounds)
    worth = ensemble_worth(library, found.family, bounds) if promote == "ensemble" else None
    deadline = None if hours is None else clock.now() + 3600 * hours
    dataset = prepare(data, library, size, split, seed, metric, skip_bad, progress, notes)
    task = Task(
        run=library.path.resolve(),
        dataset=library.dataset_path.resolve(),
        family=found.family,
        epochs=epochs,
        seed=seed,
        device="cuda" if on_gpu else "cpu",
        deadline=deadline,
    )
    weight = functools.partial(job_weight, found.family, dataset.input, len(dataset.rows("train")))
    if places.open_to_profile:
        seconds = None if hours is None else 3600 * hours
        if pack := packed(task, found, weight, places.gpus(), seconds, progress):
            places = dataclasses.replace(places, pack=pack[0])
            notes.append(pack[1])
    task = dataclasses.replace(task, threads=places.threads(), spare=places.spare())
    work = functools.partial(train_job, task)
    with places.open(work, library.logs_path, functools.partial(trained, library)) as workers:
        last = run_search(library, settings, workers, weight=weight, deadline=deadline, watch=watch, worth=worth)
    if worth is not None:
        notes.append(worth.said())
    if not library.ids() and last.ended == "trials":  # with the same seed they would all fail again
        mend = f"see {library.logs_path}, mend the cause and use another folder with --run"
        raise SearchError(f"no network was trained, all {last.jobs} jobs failed: {mend}")
    if not library.ids():
        raise SearchError(f"no network was trained in the time given: see {library.logs_path}, or give more --hours")
    return library


def prepare(
    data: Source,
    library: Library,
    size: int | None = None,
    split: tuple[float, float, float] = (0.72, 0.08, 0.20),
    seed: int = 0,
    metric: Metric | None = None,
    skip_bad: bool = False,
    progress: Progress = quiet,
    notes: list[str] | None = None,
) -> Dataset:
    """The run's memory-mapped data set, made from `data` unless the run has it already; a `metric` of None is any.

    Raises SearchError when the run was made from other data, from the same split otherwise, or for another metric;
    RipienoError when another process is making it.
    """
    from ripieno.data import load_dataset, open_dataset

    asked: dict[str, Any] = {"source": _named(data), "size": size, "split": list(split), "seed": seed}
    asked["skip_bad"] = skip_bad
    record = library.dataset_path / "source.json"
    if record.exists():
        before = {"metric": metric} | files.read_json(record, dict[str, Any])  # older ones do not say
        asked["metric"] = metric or before["metric"]
        if before.get("source") == _named(data, images=False):  # of a version that did not look at the images
            asked["source"] = before["source"]
        if before != asked:
            differing = ", ".join(k for k in asked if before.get(k) != asked[k])
            raise SearchError(
                f"{library.path} was made from {before.get('source')} with another {differing}: "
                "ask for the same, or use another folder with --run"
            )
        return open_dataset(library.dataset_path)
    told = functools.partial(progress, "reading images")
    asked["metric"] = metric or "accuracy"
    with _alone(library):
        dataset = load_dataset(
            data,
            size=size,
            split=split,
            seed=seed,
            metric=asked["metric"],
            skip_bad=skip_bad,
            progress=told,
            notes=notes,
            folder=library.dataset_path,
        )
        files.write_json(record, asked)
    return dataset


@contextmanager
def _alone(library: Library) -> Iterator[None]:
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


def _named(data: Source, images: bool = True) -> str:
    """What a source is called in the run's record: its path, or checksums of arrays.

    Without `images` as records of older versions say it, which counted the labels only.
    """
    if isinstance(data, str | Path):
        return str(Path(data).resolve())
    if is_brought(data):
        return named(data, images)
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


def trained(library: Library, job: Job) -> int:
    """What changes with every epoch that the job's trial has behind it: when its checkpoint was written."""
    path = library.checkpoint_path(job.trial)
    return path.stat().st_mtime_ns if path.exists() else 0


def job_weight(family: str, shape: Input, samples: int, configuration: Configuration) -> float:
    """Rough milliseconds of one epoch: what orders results reproducibly, whatever the real timing.

    Only ratios between configurations matter, and only roughly: a wrong guess costs waiting, never a wrong decision.
    """
    from ripieno.models.cost import megaflops

    steps = samples / float(configuration.get("batch_size", 64))
    work = megaflops(configuration, shape) if family == "resnet" else 0.0
    # a step costs some milliseconds however small the network; forward and backward are three times the forward
    return steps * 5.0 + samples * 3.0 * work / 20.0
