"""Step demo: the whole demo as a user runs it, then measure, select, allocate and predict on the device."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
from kit import Options, Report, read_options

import ripieno
from ripieno.data import open_dataset
from ripieno.tasks.calibration import combine_calibrated

BACKENDS = ("torch", "torch-graphs", "auto")
NETWORKS = """import functools, ripieno.__main__
from ripieno.cli import demo
demo.search = functools.partial(demo.search, free="off")
"""
"""The demo with networks alone, which all backends run."""
SHORT = "demo.EPOCHS, demo.SERVED_SECONDS = 1, 0.05\n"
"""A dry run: one epoch a trial, few requests."""


def main() -> None:
    """Run the demo in a process of its own; it resumes. Then use its library."""
    options = read_options()
    report = Report(options)
    run = options.scratch / "demo"
    began = time.monotonic()
    program = NETWORKS + (SHORT if options.dry else "") + "ripieno.__main__.main()"
    trials = 5 if options.dry else 30
    command = [sys.executable, "-c", program, "demo", "--run", str(run), "--trials", str(trials)]
    # without a visible GPU the demo of a dry run uses the CPU on any machine
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if options.dry else {}
    done = subprocess.run(command, env={**os.environ, **hidden}, check=False)
    row = {} if done.returncode == 0 else {"error": f"exit code {done.returncode}"}
    report.add(what="ripieno demo", seconds=time.monotonic() - began, **row)
    library = ripieno.Library(run)
    members = library.members()
    report.add(what="members trained", value=len(members))
    report.add(what="seconds of training", value=max(m.seconds for m in members), remark="the longest trial")
    use_library(options, report, library)


def use_library(options: Options, report: Report, library: ripieno.Library) -> None:
    """Measure, select, allocate, predict, and compare with the members' combined predictions on the CPU."""
    with report.case(what="measure"):
        began = time.monotonic()
        profiles = ripieno.measure(library, device=options.device, prune=0.25, backend="torch")
        costs = sorted(p.cost for p in profiles.values())
        report.add(what="measure", value=len(costs), seconds=time.monotonic() - began)
        report.add(what="cost of a member", value=costs[len(costs) // 2], remark="seconds for 2,000 images, median")
    ensemble = library.ensembles()[-1]
    dataset = open_dataset(library.dataset_path)
    images = np.ascontiguousarray(dataset.inputs[dataset.rows("test")])
    combined = combine_calibrated([library.predictions(m, "test") for m in ensemble.members], ensemble)
    for backend in BACKENDS[: 1 if options.dry else None]:
        if options.left() < 120 and backend == "auto":  # it compiles every member
            report.note("No time was left for the backend auto.")
            return
        with report.case(what=f"allocate, {backend}"):
            began = time.monotonic()
            bundle = ripieno.allocate(
                library,
                ensemble,
                devices=options.device,
                backend=backend,
                max_benches=2 if options.dry else 8,
                bundle=options.scratch / f"bundle-{backend}",
            )
            report.add(what=f"allocate, {backend}", seconds=time.monotonic() - began)
            worst = float(np.abs(ripieno.predict(bundle, images) - combined).max())
            row = {"error": "larger than 1e-4"} if worst > 1e-4 else {}
            report.add(what=f"difference from the members on the CPU, combined, {backend}", value=worst, **row)
            speed = ripieno.bench(bundle, seconds=0.2 if options.dry else 2.0).throughput
            report.add(what=f"images/s, {backend}", value=speed, remark=f"{len(ensemble.members)} members")


if __name__ == "__main__":
    main()
