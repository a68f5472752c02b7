"""The whole workflow on real handwritten digits: search, costs, selection, allocation, a server and a client."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import pipeline
from ripieno.cli import console
from ripieno.cli.progress import progress_callback
from ripieno.data import open_dataset
from ripieno.errors import RipienoError, require
from ripieno.library import Library
from ripieno.library.cost_table import CostTable
from ripieno.library.evaluate import evaluate
from ripieno.selection import round_budget
from ripieno.shell_command import command, shell
from ripieno.tasks.calibration import combine_calibrated
from ripieno.types import SPLITS, Bundle, Ensemble

TRIALS = 30
EPOCHS = 27
SPACE = "resnet-tiny"
ALGORITHM = "random"
SPLIT = (0.1, 0.4, 0.5)
"""Shares of training, validation and test images."""
PRUNE = 0.25
"""Share of the library to select from."""
BUDGETS = (1, 3, 9)
"""Budgets, in median costs of the measured networks."""
SERVED_SECONDS = 2.0
"""Seconds for which each ensemble is measured over HTTP."""


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the digits of scikit-learn: images (1797, 8, 8, 1) in 0..255 and labels (1797,)."""
    loaded = require("sklearn.datasets").load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, loaded.target.astype(np.int64)


def search(run: Path, trials: int = TRIALS, *, seed: int | None = None, **options: Any) -> Library:
    """Run or resume the search of the demo; `options` are further ones of `pipeline.tune`."""
    return pipeline.tune(
        digits(),
        run,
        trials=trials,
        epochs=EPOCHS,
        space=SPACE,
        algorithm=ALGORITHM,
        split=SPLIT,
        seed=seed,
        **options,
    )


def budgets_of(costs: Iterable[float]) -> list[float]:
    """Return the budgets of the demo for the measured `costs`."""
    ordered = sorted(costs)
    return [round_budget(k * ordered[len(ordered) // 2]) for k in BUDGETS]


def run_demo(run: Path, trials: int = TRIALS) -> None:
    """Run or resume the demo in the folder `run`. Raises RipienoError if a check fails."""
    if trials < 5:
        raise RipienoError(f"trials {trials}: the demo needs at least 5 to select from")
    if run.is_dir() and any(run.iterdir()) and not (run / "dataset" / "dataset.json").exists():
        raise RipienoError(f"{run} is not empty and not of an earlier demo: pass a new folder with --run")
    began = time.monotonic()
    say = console.say
    with console.progress() as progress:
        say(
            ("1. search", "bold"),
            f" {trials} random configurations, each trained for {EPOCHS} epochs; every network is kept",
        )
        with progress_callback(run) as watch:
            library = search(run, trials, progress=progress, watch=watch)
        dataset = open_dataset(library.dataset_path)
        train, valid, test = (len(dataset.rows(split)) for split in SPLITS)
        say(f"   {train} training, {valid} validation and {test} test images, drawn at random")
        say(f"   {len(library)} members in {run}/library")
        say(("2. measure", "bold"), " the best networks alone: seconds for 2,000 images on this CPU")
        measured = pipeline.measure(library, prune=PRUNE, progress=progress)
        costs = pipeline.measured_costs(library, measured)
        alone = costs.alone("seconds").values()
        say(f"   {len(alone)} costs between {min(alone):.3g} and {max(alone):.3g} s")
        budgets = budgets_of(alone)
        say(("3. select", "bold"), f" the best ensembles for budgets of {', '.join(map(str, budgets))} s")
        ensembles = pipeline.select(library, budgets, prune=PRUNE, progress=progress)
        compared = baselines(library, costs, progress)
        middle = ensembles[1]
        where = f" {middle.name} to this machine: planned from the profiles, confirmed by benchmarks"
        say(("4. allocate", "bold"), where)
        bundle = pipeline.allocate(library, middle, max_benches=12, progress=progress)
        say(("5. serve", "bold"), " each ensemble on loopback and send it the test images over HTTP")
        rates = {middle.name: _serve_and_measure(bundle, library)}
        for other in (*compared, ensembles[0], ensembles[2]):
            progress("serving", len(rates), 5)
            placed = pipeline.allocate(library, other, max_benches=0, progress=progress)
            rates[other.name] = _serve_and_measure(placed, library)
        progress("serving", 5, 5)
    columns = "accuracy", "cross-entropy", "cost (s)", "members", "served images/s"
    results = console.table("on the test images", "", *columns)
    for ensemble in (*compared, *ensembles):
        results.add_row(
            ensemble.name,
            console.percent(ensemble.losses["test_accuracy"]),
            f"{ensemble.losses['test_cross_entropy']:.4f}",
            f"{ensemble.cost['seconds']:.3g}",
            str(len(ensemble.members)),
            f"{rates[ensemble.name]:.0f}",
        )
    from ripieno.reports import report

    with console.progress() as progress:
        written = report(library, progress=progress)
    say()
    console.out.print(results)
    for ensemble in ensembles:
        say(f"{ensemble.name} " + ", ".join(verdict(ensemble, baseline) for baseline in compared))
    say(
        f"served predictions equal the engine's and the members', combined; {time.monotonic() - began:.0f} s in total\n"
    )
    say("the same step by step:")
    for line in _step_by_step(run, trials, budgets, middle.name):
        say("  ", (line, "bold cyan"))
    shown = [*compared, *ensembles]
    console.print_result([run, written], shell("open", written), ensembles=shown, images_per_second=rates)


def _step_by_step(run: Path, trials: int, budgets: list[float], ensemble: str) -> list[str]:
    split = ",".join(f"{share:g}" for share in SPLIT)
    options = f"--space {SPACE} --algorithm {ALGORITHM} --epochs {EPOCHS} --trials {trials} --split {split}"
    return [
        f"{command('tune', run / 'dataset', run='my-run')} {options}",
        command("show", run),
        command("measure", run, prune=PRUNE),
        command("select", run, prune=PRUNE, budget=f"{budgets[0]:g}") + "".join(f" {b:g}" for b in budgets[1:]),
        command("allocate", run, ensemble, devices="cpu", bundle="my-bundle"),
        command("bench", run / "bundles" / ensemble),
        command("serve", run / "bundles" / ensemble),
        command("report", run),
    ]


def baselines(library: Library, costs: CostTable, progress: pipeline.ProgressFunction | None = None) -> list[Ensemble]:
    """Return the best single network and the plain mean of the five best, of those measured."""
    ranked = sorted(costs.own, key=lambda m: (library.member(m).loss, m))
    found = []
    for name, members in (("best-single", ranked[:1]), ("top-5-mean", ranked[:5])):
        cost = costs.total(members)
        weights = (1 / len(members),) * len(members)
        found.append(Ensemble(name, tuple(members), weights, name, budget=cost, cost=cost, losses={}))
    evaluate(library, sorted({m for e in found for m in e.members}), progress)
    return [dataclasses.replace(e, losses=pipeline.ensemble_losses(library, e)) for e in found]


def beaten(ensemble: Ensemble, baseline: Ensemble) -> tuple[bool, bool]:
    """Return whether `ensemble` has a higher test accuracy and a lower test cross-entropy. A tie is not a win."""
    own, other = ensemble.losses, baseline.losses
    return own["test_accuracy"] > other["test_accuracy"], own["test_cross_entropy"] < other["test_cross_entropy"]


def verdict(ensemble: Ensemble, baseline: Ensemble) -> str:
    """Return in words in which test scores `ensemble` beats `baseline`."""
    scores = [s for s, won in zip(("accuracy", "cross-entropy"), beaten(ensemble, baseline), strict=True) if won]
    if not scores:
        return f"does not beat {baseline.name}"
    return f"beats {baseline.name} in {' and '.join(scores)}" + (" only" if len(scores) == 1 else "")


def _serve_and_measure(bundle: Bundle, library: Library) -> float:
    """Return images per second over HTTP, after checks against the engine and the members' predictions combined."""
    from ripieno.server import start_in_thread
    from ripieno.server.client import infer

    dataset = open_dataset(library.dataset_path)
    rows = dataset.rows("test")
    images = np.ascontiguousarray(dataset.inputs[rows])
    members = [library.predictions(m, "test") for m in bundle.ensemble.members]
    combined = combine_calibrated(members, bundle.ensemble)
    engine = pipeline.predict(bundle, images)
    with start_in_thread(bundle) as server:
        served = infer(server.url, images)
        _check_equal(bundle, "those of the engine", served, engine)
        _check_equal(bundle, "those of the members, combined", served, combined)
        count, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < SERVED_SECONDS:
            count += len(infer(server.url, images))
    return count / elapsed


def _check_equal(bundle: Bundle, reference: str, served: NDArray[Any], other: NDArray[Any]) -> None:
    if not np.allclose(served, other, atol=1e-5):
        worst = float(np.abs(served - other).max())
        raise RipienoError(
            f"{bundle.ensemble.name}: served predictions differ from {reference} by {worst:.2g}: please report this bug"
        )
