"""Quality of the selection methods: 23 real CIFAR-100 networks, selected on 2,000 images, evaluated on the other 8,000.

    python benchmarks/selection/quality.py [--quick]

Test error and cross-entropy against the budget for every method over 20 random splits; SMOBF against forward with the
same budget, as in figure 5 of the paper; and the distance to `exact` on random halves of the library. Writes
benchmarks/results/selection-quality{,-pairs,-exact}.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from libraries import Predictions, cifar100, one_thread, versions
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.errors import SelectionError
from ripieno.selection import Choice, front, select_members
from ripieno.tasks.metrics import true_class

BUDGETS = (30, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3600, 6000)
METHODS = ("best", "top-k", "forward", "replacement", "smobf", "swap")
HALF = 12


def random_members(costs: NDArray[np.float64], budget: float, rng: np.random.Generator) -> Choice:
    """Add members in random order while they fit."""
    members: list[int] = []
    for member in rng.permutation(len(costs)):
        if costs[[*members, int(member)]].sum() <= budget:
            members.append(int(member))
    return Choice(tuple(members), (1 / len(members),) * len(members), 0.0, float(costs[members].sum()))


def judge(library: Predictions, choice: Choice, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Return test error in percent and cross-entropy."""
    members = list(choice.members)
    mean = np.tensordot(np.array(choice.weights, dtype=np.float32), library.cube[members][:, rows], axes=1)
    error = 100 * float((mean.argmax(axis=1) != library.labels[rows]).mean())
    return error, float(-np.log(np.maximum(true_class(mean, library.labels[rows]), 1e-15)).mean())


def splits(count: int, samples: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return random (selection, test) rows."""
    orders = [np.random.default_rng(seed).permutation(samples) for seed in range(count)]
    return [(np.sort(order[:2000]), np.sort(order[2000:])) for order in orders]


def against_budget(library: Predictions, count: int) -> dict[tuple[str, float], NDArray[np.float64]]:
    """Return validation loss, test error, test loss and cost, (splits, 4), by method and budget."""
    truth = true_class(library.cube, library.labels)
    found: dict[tuple[str, float], list[tuple[float, float, float, float]]] = {}
    for seed, (select, test) in enumerate(splits(count, len(library.labels))):
        rng = np.random.default_rng(seed)
        on_front = front(truth[:, select], costs=library.costs, budgets=BUDGETS, method="smobf")
        for place, budget in enumerate(BUDGETS):
            part, costs = truth[:, select], library.costs
            choices = {m: select_members(part, costs=costs, budget=budget, method=m) for m in METHODS}
            choices |= {"front": on_front[place], "random": random_members(library.costs, budget, rng)}
            for method, choice in choices.items():
                found.setdefault((method, budget), []).append((choice.loss, *judge(library, choice, test), choice.cost))
    return {key: np.array(values) for key, values in found.items()}


def near_exact(library: Predictions, count: int) -> list[dict[str, object]]:
    """Measure the gap of each method to the best of all ensembles, on random halves of the library."""
    truth = true_class(library.cube, library.labels)
    rows = []
    gaps: dict[tuple[float, str], list[float]] = {}
    for seed, (select, _) in enumerate(splits(count, len(library.labels))):
        half = np.sort(np.random.default_rng(1000 + seed).permutation(len(truth))[:HALF])
        part, costs = truth[half][:, select], library.costs[half]
        for budget in BUDGETS[1::3]:
            try:
                best = select_members(part, costs=costs, budget=budget, method="exact").loss
            except SelectionError:
                continue
            for method in ("forward", "smobf", "swap"):
                loss = select_members(part, costs=costs, budget=budget, method=method).loss
                gaps.setdefault((budget, method), []).append(loss - best)
            loss = front(part, costs=costs, budgets=[b for b in BUDGETS if costs.min() <= b <= budget], method="smobf")[
                -1
            ].loss
            gaps.setdefault((budget, "front"), []).append(loss - best)
    for (budget, method), values in gaps.items():
        array = np.array(values)
        rows.append(
            {
                "budget": float(budget),
                "method": method,
                "mean gap": float(array.mean()),
                "worst gap": float(array.max()),
                "optimal %": 100 * float((array < 1e-9).mean()),
            }
        )
    return rows


def main() -> None:
    """Print three tables."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 splits")
    options = parser.parse_args()
    count, suffix = (3, "-quick") if options.quick else (20, "")
    library = cifar100()
    settings = {"splits": count, "selection": 2000, "test": 8000, **versions()}
    found = against_budget(library, count)
    rows = [
        {
            "budget": float(budget),
            "method": method,
            "cost": float(values[:, 3].mean()),
            "valid loss": float(values[:, 0].mean()),
            "test loss": float(values[:, 2].mean()),
            "test error %": float(values[:, 1].mean()),
            "sd": float(values[:, 1].std(ddof=1)),
        }
        for (method, budget), values in sorted(found.items(), key=lambda item: item[0][1])
    ]
    record(f"selection-quality{suffix}", settings, rows, "budget and cost in millions of multiply-adds")
    pairs = []
    for budget in BUDGETS:
        difference = found["smobf", budget] - found["forward", budget]
        noise = difference.std(axis=0, ddof=1) / np.sqrt(count)
        pairs.append(
            {
                "budget": float(budget),
                "test error, smobf - forward": float(difference[:, 1].mean()),
                "+-": float(noise[1]),
                "test loss, smobf - forward": float(difference[:, 2].mean()),
                "+- ": float(noise[2]),
                "cost, smobf - forward": float(difference[:, 3].mean()),
                "smobf dominated": bool((difference.mean(axis=0)[1:] > 2 * noise[1:] + 1e-12).all()),
            }
        )
    record(f"selection-quality-pairs{suffix}", settings, pairs, "means over the splits of paired differences")
    record(f"selection-quality-exact{suffix}", settings, near_exact(library, count), f"{HALF} of the 23 networks")


if __name__ == "__main__":
    main()
