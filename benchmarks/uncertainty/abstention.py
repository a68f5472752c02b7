"""Error of the samples that are answered, and how many are, by what a sample is left unanswered for.

    python benchmarks/uncertainty/abstention.py [--draws 20] [--samples 1000] [--errors 0.02 0.05 0.1]

Recorded networks of CIFAR-100; an ensemble of at most 5 members is selected from the samples of a draw. The threshold
is fitted to the same samples, and measured on all others. Confidence, entropy and mutual information are compared, and
the area under the risk-coverage curve with that of the best single network of at most the ensemble's cost.
Writes benchmarks/results/uncertainty-abstention.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from libraries import cifar100, one_thread, versions
from record import record

from ripieno.errors import SelectionError
from ripieno.selection import select_members
from ripieno.tasks.uncertainty import abstention_threshold, entropy, mutual_information, risk_coverage_area


def main() -> None:
    """Run the draws and record means with standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--errors", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    options = parser.parse_args()
    one_thread()
    known = cifar100()
    found: dict[tuple[str, float], list[tuple[float, float]]] = {}
    areas: dict[str, list[float]] = {}
    for draw in range(options.draws):
        order = np.random.default_rng(draw).permutation(len(known.labels))
        own, rest = order[: options.samples], order[options.samples :]
        choice = select_members(known.cube[:, own], known.labels[own], budget=5, prune=1.0, cv=0)
        combined = choice.combine(known.cube)
        wrong = (combined.argmax(axis=1) != known.labels).astype(np.float64)
        chosen = list(choice.members)
        weights = np.asarray(choice.weights) / np.sum(choice.weights)
        measures = {
            "confidence": combined.max(axis=1),
            "entropy": -entropy(combined, "softmax"),
            "mutual information": -mutual_information(known.cube[chosen], weights, "softmax"),
        }
        for name, certainty in measures.items():
            areas.setdefault(name, []).append(risk_coverage_area(certainty[rest], wrong[rest]))
            for error in options.errors:
                try:
                    threshold = abstention_threshold(certainty[own], wrong[own], error)
                except SelectionError:
                    continue
                answered = certainty[rest] >= threshold
                pair = float(wrong[rest][answered].mean()), float(answered.mean())
                found.setdefault((name, error), []).append(pair)
        within = np.flatnonzero(known.costs <= known.costs[chosen].sum())
        losses = [-np.log(np.maximum(known.cube[m, own, known.labels[own]], 1e-15)).mean() for m in within]
        best = known.cube[within[int(np.argmin(losses))]]
        mistaken = (best.argmax(axis=1) != known.labels).astype(np.float64)
        areas.setdefault("best single network", []).append(risk_coverage_area(best.max(axis=1)[rest], mistaken[rest]))
    rows: list[dict[str, Any]] = [
        {
            "by": name,
            "error asked for": error,
            "error": float(np.mean([e for e, _ in pairs])),
            "its error": float(np.std([e for e, _ in pairs], ddof=1) / len(pairs) ** 0.5),
            "answered": float(np.mean([a for _, a in pairs])),
            "draws": len(pairs),
        }
        for (name, error), pairs in found.items()
    ]
    rows += [{"by": name, "area": float(np.mean(values))} for name, values in areas.items()]
    note = "error and share of the samples that are answered; area: under the risk-coverage curve; on unseen samples"
    record("uncertainty-abstention", {"draws": options.draws, "samples": options.samples, **versions()}, rows, note)


if __name__ == "__main__":
    main()
