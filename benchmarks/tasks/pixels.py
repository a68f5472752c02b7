"""Selection from recorded predictions of pixels: all pixels against samples of each image, in seconds, memory and loss.

    python benchmarks/tasks/pixels.py [RUN ...] [--pixels 50 200 1000 5000] [--rounds 3]
        [--method smobf-r]

RUN is a run of a segmentation; by default that of `segmentation.py` from nothing, seed 0. All members with costs are
candidates, and the budgets are those of `segmentation.py`. Each selection, with its expected loss by five folds, runs
in a process of its own, in turns, with warm files. Seconds are the median of the rounds; memory is the peak of the
process less that before it selects, and counts the pages of mapped files that it read. The loss is the validation
cross-entropy of the last budget's ensemble: as the selection saw it, and restated on all pixels. Mean IoU is that of
the test pixels.
Writes benchmarks/results/tasks-pixels{,-METHOD}.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
from ensembles import BUDGETS, measured
from libraries import one_thread, versions
from record import record
from sets import camvid_run

from ripieno import pipeline
from ripieno.library import Library
from ripieno.library.evaluate import evaluate
from ripieno.selection import front
from ripieno.selection.validation import SelectionMethod
from ripieno.types import IGNORED


def select(run: Path, pixels: int | None, method: SelectionMethod) -> dict[str, Any]:
    """Select from a run as `ripieno.select` does; return seconds, memory, losses and the members."""
    library = Library(run)
    costs = measured(library)
    ids = sorted(costs.own)
    alone = costs.alone("seconds")
    budgets = [float(np.median(list(alone.values()))) * k for k in BUDGETS]
    truth, masks = library.true_class_mapped(ids), library.targets()
    for row in truth:
        np.asarray(row).sum(dtype=np.float64)  # the files are read before the time is taken
    before, started = _peak(), time.perf_counter()
    choices = front(
        truth, masks, budgets=budgets, prune=1.0, names=ids, task=library.member(ids[0]).task, pixels=pixels,
        method=method, cv=5, **costs.arguments(ids),
    )  # fmt: skip
    seconds, used, choice = time.perf_counter() - started, _peak() - before, choices[-1]
    ensemble = choice.ensemble("pixels", ids, {"seconds": budgets[-1]}, method)
    evaluate(library, ensemble.members)
    losses = pipeline.ensemble_losses(library, ensemble)
    return {
        "seconds": seconds,
        "MiB": used,
        "loss seen": choice.loss,
        "on all pixels": losses["valid_cross_entropy"],
        "test mean IoU %": 100 * losses["test_mean_iou"],
        "members": ensemble.members,
        "candidates": len(ids),
        "images": len(masks),
        "counted": int((np.asarray(masks) != IGNORED).sum()),
    }


def _peak() -> float:
    """Return the largest resident memory of this process so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(run: Path, pixels: int | None, method: str) -> dict[str, Any]:
    """Return what `select` returns, from a process of its own."""
    command = [sys.executable, __file__, str(run), "--child", str(pixels or 0), "--method", method]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(found.splitlines()[-1]))


def rows(run: Path, samples: list[int | None], rounds: int, method: str) -> list[dict[str, Any]]:
    """Return a row for each number of pixels."""
    taken: dict[int | None, list[dict[str, Any]]] = {pixels: [] for pixels in samples}
    for _ in range(rounds):
        for pixels in samples:
            taken[pixels].append(child(run, pixels, method))
    whole = taken[None][0]
    lines = []
    for pixels, found in taken.items():
        first = found[0]
        counted = whole["counted"] if pixels is None else min(pixels * first["images"], whole["counted"])
        line = {"run": run.name, "pixels of an image": pixels or "all", "pixels": counted}
        line |= {"candidates": first["candidates"], "members": len(first["members"])}
        line |= {key: float(np.median([one[key] for one in found])) for key in ("seconds", "MiB")}
        line |= {key: first[key] for key in ("loss seen", "on all pixels", "test mean IoU %")}
        line["above all pixels %"] = 100 * (first["on all pixels"] / whole["on all pixels"] - 1)
        line["in common"] = len({*first["members"]} & {*whole["members"]})
        lines.append(line)
    return lines


def main() -> None:
    """Select from each run with each number of pixels."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*", default=[camvid_run(0)], metavar="RUN")
    parser.add_argument("--pixels", type=int, nargs="+", default=[50, 200, 1000, 5000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", default="smobf-r")
    parser.add_argument("--child", type=int, help="internal: pixels of the selection in this process; 0: all")
    options = parser.parse_args()
    if options.child is not None:
        print(json.dumps(select(options.runs[0], options.child or None, options.method)))
        return
    for run in options.runs:
        measured(Library(run))  # once, before any time is taken
    samples = [None, *options.pixels]
    found = [row for run in options.runs for row in rows(run, samples, options.rounds, options.method)]
    settings = {
        "method": options.method,
        "rounds": options.rounds,
        "budgets": ", ".join(f"{k} x" for k in BUDGETS),
        "threads": 1,
        **versions(),
    }
    name = "tasks-pixels" + f"-{options.method}" * (options.method != "smobf-r")
    record(name, settings, found, "budgets: in costs of the median member; one selection for all of them")


if __name__ == "__main__":
    main()
