"""Methods and calibrations on samples that selection has not seen: recorded networks, and runs of one's own.

    python benchmarks/selection/calibration.py [--draws 20] [--samples 300 2000] [--runs RUN ...] [--joint]

For each draw, some samples are drawn to select from, the rest are for the test. Budgets are 1 and 4 mean costs of the
library's networks. Every method selects with members as they are and calibrated. Also recorded: the loss on the
selection samples, and the expected one with its error, for its bias and the coverage of twice its error. A draw that
is in the result file is not run again. Writes benchmarks/results/selection-calibration.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from libraries import Predictions, cifar100, one_thread, versions

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

import ripieno
from ripieno.library.evaluate import evaluate
from ripieno.selection import Choice, select_members
from ripieno.tasks.calibration import calibrate_member
from ripieno.tasks.metrics import accuracy, cross_entropy

METHODS = ("smobf", "replacement", "smobf-r")
BUDGETS = (1, 4)
"""In mean costs."""
DRAWS = Path(__file__).parents[1] / "results" / "selection-calibration-draws.json"


def of_run(path: Path) -> Predictions:
    """Return the members of a run with measured costs, on its validation and test samples together."""
    library = ripieno.Library(path)
    costs = ripieno.show(library).costs
    ids = sorted(costs)
    evaluate(library, ids)
    cube = np.stack([np.concatenate([library.predictions(m, s) for s in ("valid", "test")]) for m in ids])
    labels = np.concatenate([library.targets("valid"), library.targets("test")])
    return Predictions(cube.astype(np.float32), labels, np.array([costs[m] for m in ids]), ids)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error over ten bins of equal width."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * 10).astype(int), 9)
    gaps = [abs(confidence[number == b].mean() - right[number == b].mean()) * (number == b).mean() for b in set(number)]
    return float(sum(gaps))


def draw(library: Predictions, samples: int, seed: int, joint: bool) -> Iterable[dict[str, Any]]:
    """Yield a row for each budget, method and calibration of one draw of the selection samples."""
    order = np.random.default_rng(seed).permutation(len(library.labels))
    seen, unseen = order[:samples], order[samples:]
    cube, labels = library.cube[:, seen], library.labels[seen]
    fitted = [calibrate_member(member, labels) for member in cube]
    for budget in BUDGETS:
        limit = max(budget * library.costs.mean(), library.costs.min())
        modes = ["none", "members", *(["joint"] if joint else [])]
        for method, mode in ((m, c) for m in METHODS for c in modes):
            choice: Choice = select_members(
                cube,
                labels,
                library.costs,
                limit,
                method,
                prune=1.0,
                calibrate=mode,
                calibrations=fitted if mode == "members" else None,
                cv=5 if mode != "joint" else 0,
            )
            answer = choice.combine(library.cube[:, unseen])
            yield {
                "budget": budget,
                "method": method,
                "calibrate": mode,
                "members": len(choice.members),
                "loss": choice.loss,
                "expected": choice.expected_loss,
                "error": choice.expected_loss_error,
                "test": cross_entropy(answer, library.labels[unseen]),
                "accuracy": accuracy(answer, library.labels[unseen]),
                "calibration error": calibration_error(answer, library.labels[unseen]),
            }


def table(draws: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each cell: means over the draws, and the paired difference to SMOBF with its interval."""
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for key, rows in draws.items():
        name, samples, _ = key.split("/")
        for row in rows:
            cell = (name, int(samples), row["budget"], row["method"], row["calibrate"])
            cells.setdefault(cell, []).append(row)
    result = []
    for (name, samples, budget, method, mode), rows in sorted(cells.items()):
        baseline = cells[name, samples, budget, "smobf", "none"]
        change = np.array([r["test"] / b["test"] - 1 for r, b in zip(rows, baseline, strict=True)])
        right = np.array([r["accuracy"] - b["accuracy"] for r, b in zip(rows, baseline, strict=True)])
        half = 1.96 / max(len(rows), 2) ** 0.5
        known = [r for r in rows if r["expected"] is not None]
        result.append(
            {
                "library": name,
                "samples": samples,
                "budget": budget,
                "method": method,
                "calibrate": mode,
                "draws": len(rows),
                "members": round(float(np.mean([r["members"] for r in rows])), 1),
                "loss": round(float(np.mean([r["loss"] for r in rows])), 4),
                "expected": round(float(np.mean([r["expected"] for r in known])), 4) if known else None,
                "test": round(float(np.mean([r["test"] for r in rows])), 4),
                "against smobf %": round(100 * float(change.mean()), 2),
                "+-": round(100 * half * float(change.std(ddof=1)) if len(rows) > 1 else 0.0, 2),
                "accuracy %": round(100 * float(np.mean([r["accuracy"] for r in rows])), 2),
                "accuracy change": round(100 * float(right.mean()), 2),
                "+- points": round(100 * half * float(right.std(ddof=1)) if len(rows) > 1 else 0.0, 2),
                "calibration error": round(float(np.mean([r["calibration error"] for r in rows])), 4),
                "covered %": round(
                    100 * float(np.mean([abs(r["test"] - r["expected"]) <= 2 * r["error"] for r in known]))
                )
                if known
                else None,
            }
        )
    return result


def main() -> None:
    """Run the draws that are missing, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--samples", type=int, nargs="+", default=[300, 2000, 100, 1000, 3000])
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--joint", action="store_true", help="also fit the ensemble's temperature at every step (slow)")
    options = parser.parse_args()
    one_thread()
    libraries = {"recorded CIFAR-100 (23)": cifar100()}
    for run in options.runs:
        library = of_run(run)
        libraries[f"{run.name} ({len(library.names)})"] = library
    draws = json.loads(DRAWS.read_text()) if DRAWS.exists() else {}
    for samples in options.samples:
        for seed in range(options.draws):
            for name, library in libraries.items():
                key = f"{name}/{samples}/{seed}"
                if key in draws or samples > len(library.labels) // 2:
                    continue
                draws[key] = list(draw(library, samples, seed, options.joint))
                DRAWS.write_text(json.dumps(draws) + "\n")
                print(f"{key} done", flush=True)
    record("selection-calibration", versions(), table(draws), "test loss in nats; budgets in mean costs of the library")


if __name__ == "__main__":
    main()
