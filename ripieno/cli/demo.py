"""The whole workflow on real handwritten digits: search, costs, selection, allocation, a server and a client."""

from __future__ import annotations

import dataclasses
import time
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
from ripieno.library.evaluate import evaluate
from ripieno.selection import round_budget
from ripieno.shell_command import command, shell
from ripieno.tasks.calibration import combine_calibrated
from ripieno.types import Bundle, Ensemble

EPOCHS = 9
SERVED_SECONDS = 2.0
"""Seconds for which each ensemble is measured over HTTP."""


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the digits of scikit-learn: images (1797, 8, 8, 1) in 0..255 and labels (1797,)."""
    loaded = require("sklearn.datasets").load_digits()
    images = np.rint(loaded.images * (255 / 16)).astype(np.uint8)[..., None]
    return images, loaded.target.astype(np.int64)


def run_demo(run: Path, trials: int) -> None:
    """Run or resume the demo in the folder `run`. Raises RipienoError if a check fails."""
    if trials < 5:
        raise RipienoError(f"trials {trials}: the demo needs at least 5 to select from")
    if run.is_dir() and any(run.iterdir()) and not (run / "dataset" / "dataset.json").exists():
        raise RipienoError(f"{run} is not empty and not of an earlier demo: pass a new folder with --run")
    began = time.monotonic()
    say = console.say
    with console.progress() as progress:
        say(("1. search", "bold"), f" {trials} configurations with asynchronous Hyperband; every network is kept")
        with progress_callback() as watch:
            library = pipeline.tune(
                digits(),
                run,
                trials=trials,
                epochs=EPOCHS,
                space="resnet-tiny",
                split=(0.6, 0.2, 0.2),
                progress=progress,
                watch=watch,
            )
        say(f"   {len(library)} members in {run}/library")
        say(("2. measure", "bold"), " the best networks alone: seconds for 2,000 images on this CPU")
        profiles = pipeline.measure(library, prune=0.25, progress=progress)
        costs = sorted(p.cost for p in profiles.values())
        say(f"   {len(costs)} costs between {costs[0]:.3g} and {costs[-1]:.3g} s")
        median = costs[len(costs) // 2]
        budgets = [round_budget(k * median) for k in (1, 3, 9)]
        say(("3. select", "bold"), f" the best ensembles for budgets of {', '.join(map(str, budgets))} s")
        ensembles = pipeline.select(library, budgets, prune=0.25, progress=progress)
        baselines = _baselines(library, {m: p.cost for m, p in profiles.items()}, progress)
        middle = ensembles[1]
        where = f" {middle.name} to this machine: planned from the profiles, confirmed by benchmarks"
        say(("4. allocate", "bold"), where)
        bundle = pipeline.allocate(library, middle, max_benches=12, progress=progress)
        say(("5. serve", "bold"), " each ensemble on loopback and send it the test images over HTTP")
        rates = {middle.name: _serve_and_measure(bundle, library)}
        for other in (*baselines, ensembles[0], ensembles[2]):
            progress("serving", len(rates), 5)
            placed = pipeline.allocate(library, other, max_benches=0, progress=progress)
            rates[other.name] = _serve_and_measure(placed, library)
        progress("serving", 5, 5)
    columns = "accuracy", "cross-entropy", "cost (s)", "members", "served images/s"
    results = console.table("on the test images", "", *columns)
    for ensemble in (*baselines, *ensembles):
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
    say(
        f"served predictions equal the engine's and the members', combined; {time.monotonic() - began:.0f} s in total\n"
    )
    say("the same step by step:")
    for line in _step_by_step(run, budgets, middle.name):
        say("  ", (line, "bold cyan"))
    shown = [*baselines, *ensembles]
    console.print_result([run, written], shell("open", written), ensembles=shown, images_per_second=rates)


def _step_by_step(run: Path, budgets: list[float], ensemble: str) -> list[str]:
    options = f"--space resnet-tiny --epochs {EPOCHS} --trials 30 --split 0.6,0.2,0.2"
    return [
        f"{command('tune', run / 'dataset', run='my-run')} {options}",
        command("show", run),
        command("measure", run),
        command("select", run, budget=f"{budgets[0]:g}") + "".join(f" {b:g}" for b in budgets[1:]),
        command("allocate", run, ensemble, devices="cpu", bundle="my-bundle"),
        command("bench", run / "bundles" / ensemble),
        command("serve", run / "bundles" / ensemble),
        command("report", run),
    ]


def _baselines(library: Library, costs: dict[str, float], progress: pipeline.ProgressFunction) -> list[Ensemble]:
    """Return the best single network and the plain mean of the five best, of those measured."""
    ranked = sorted(costs, key=lambda m: (library.member(m).loss, m))
    baselines = []
    for name, members in (("best-single", ranked[:1]), ("top-5-mean", ranked[:5])):
        cost = {"seconds": sum(costs[m] for m in members)}
        weights = (1 / len(members),) * len(members)
        baselines.append(Ensemble(name, tuple(members), weights, name, budget=cost, cost=cost, losses={}))
    evaluate(library, sorted({m for e in baselines for m in e.members}), progress)
    return [dataclasses.replace(e, losses=pipeline.ensemble_losses(library, e)) for e in baselines]


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
