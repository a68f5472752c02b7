"""Speed of selection at the paper's size: 2,000 samples x 100 classes, 34 steps with replacement.

    python benchmarks/selection/speed.py [--quick] [--autogluon PYTHON]

Compares, in turns: ripieno on one thread, from the true-class matrix and from the whole cube; a plain NumPy greedy that
adds whole probability tables; and one read of the true-class matrix per step, the lower bound of any such search. With
`--autogluon`, also AutoGluon's own greedy, which must choose the same members in the same order. Its environment:

    python -m venv ag && echo torch==2.13.0 > c.txt && ag/bin/pip install autogluon.core -c c.txt
    python benchmarks/selection/speed.py --autogluon ag/bin/python

Then SMOBF's whole front: three weights x 20 budgets. Targets: 5,000 times faster than AutoGluon and 100 times faster
than plain NumPy for 200 members; the front in at most 50 ms. Writes benchmarks/results/selection-speed.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from libraries import Predictions, grown, one_thread, versions

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.selection import front, select_members
from ripieno.tasks.metrics import true_class

STEPS = 34


def plain(library: Predictions, steps: int) -> list[int]:
    """Select greedily with replacement over the whole cube, in plain NumPy."""
    total = np.zeros(library.cube.shape[1:])
    rows = np.arange(len(library.labels))
    picks: list[int] = []
    for step in range(1, steps + 1):
        losses = []
        for member in library.cube:
            mean = (total + member) / step
            losses.append(-np.log(np.clip(mean[rows, library.labels], 1e-15, 1)).mean())
        picks.append(int(np.argmin(losses)))
        total += library.cube[picks[-1]]
    return picks


def seconds(function: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def autogluon(python: str, library: Predictions) -> tuple[float, list[int]]:
    """Return time and picks of AutoGluon."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "library.npz"
        np.savez(saved, cube=library.cube, labels=library.labels)
        script = Path(__file__).with_name("autogluon_peer.py")
        done = subprocess.run([python, script, saved, str(STEPS)], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["seconds"], answer["order"]


def measure(members: int, rounds: int, peer: str | None) -> dict[str, object]:
    """Measure one library size; return its row."""
    library = grown(members)
    truth = np.ascontiguousarray(true_class(library.cube, library.labels))
    ones = np.ones(truth.shape[1], dtype=np.float32)
    budgets = np.geomspace(library.costs.min() * 1.1, 5000, 20).tolist()
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: select_members(truth, method="replacement", size=STEPS, prune=1.0),
        "floor": lambda: [truth @ ones for _ in range(STEPS)],
        "front": lambda: front(truth, costs=library.costs, budgets=budgets, prune=1.0, method="smobf"),
        "front pruned": lambda: front(truth, costs=library.costs, budgets=budgets, method="smobf"),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds(run))
    middle = {name: float(np.median(times)) for name, times in taken.items()}
    cube = float(
        np.median(
            [
                seconds(
                    lambda: select_members(library.cube, library.labels, method="replacement", size=STEPS, prune=1.0)
                )
                for _ in range(3)
            ]
        )
    )
    choice = select_members(truth, method="replacement", size=STEPS, prune=1.0)
    picks: list[int] = []
    slow = seconds(lambda: picks.extend(plain(library, STEPS)))
    row: dict[str, object] = {
        "members": members,
        "ours ms": middle["ours"] * 1e3,
        "range ms": f"{min(taken['ours']) * 1e3:.2f}-{max(taken['ours']) * 1e3:.2f}",
        "from the cube ms": cube * 1e3,
        "plain s": slow,
        "plain/ours": slow / middle["ours"],
        "plain/cube": slow / cube,
        "ours/floor": middle["ours"] / middle["floor"],
        "same as plain": tuple(picks[: len(choice.steps)]) == choice.steps,
        "front ms": middle["front"] * 1e3,
        "pruned front ms": middle["front pruned"] * 1e3,
    }
    if peer:
        theirs, order = autogluon(peer, library)
        row |= {"autogluon s": theirs, "autogluon/ours": theirs / middle["ours"], "autogluon/cube": theirs / cube}
        row["same as autogluon"] = tuple(order[: len(choice.steps)]) == choice.steps
    return row


def main() -> None:
    """Measure each size."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40 members only, few rounds")
    parser.add_argument("--autogluon", metavar="PYTHON", help="the Python of an environment with autogluon.core")
    options = parser.parse_args()
    sizes = (40,) if options.quick else (40, 200, 1000)
    rows = [measure(size, 5 if options.quick else 25, options.autogluon) for size in sizes]
    name = "selection-speed-quick" if options.quick else "selection-speed"
    record(name, {"steps": STEPS, "threads": 1, **versions()}, rows, "medians; same: members in the same order")


if __name__ == "__main__":
    main()
