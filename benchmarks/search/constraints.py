"""Constraints of a search: the share of training time that goes to networks which break them, on LCBench.

    python benchmarks/search/constraints.py [--quick] [--seeds N] [--tasks N] [--trials N] [--share S]

Searches of `--trials` trials are simulated in virtual time on six workers. The constraint bounds the parameters of the
networks, at the quantile `--share` of random configurations, so that this share meets it. A search is plain (not
told), told before training (`known`: parameters follow from the configuration), or told after each trial's first rung
(`measured`: a latency that is proportional to the parameters, times an error of 10 %). Reported are the share of
training seconds spent on trials that break the bound in truth, the share of trials that do, the configurations drawn
again per trial, and the lowest validation cross-entropy of trials that meet the bound relative to that of the plain
search. All are means over tasks and seeds, with 95 % bootstrap intervals over seeds. Writes
benchmarks/results/search-constraints.{json,txt}.
"""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from itertools import pairwise, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from lcbench import EPOCHS, LCBench
from record import record

from ripieno.search import Settings, simulate
from ripieno.search.constraints import draw_configuration
from ripieno.types import Configuration

INPUTS, OUTPUTS = 54, 2
"""Columns and classes of a middling task of LCBench; its networks are funnels from the largest layer."""
NOISE = 0.1
WORKERS = 6
ALGORITHMS = ("hyperband", "hyperband+forest", "bohb")
FORMS = ("plain", "known", "measured")


def parameters(configuration: Configuration) -> float:
    """Count the parameters of a funnel of fully connected layers."""
    layers, most = int(configuration["num_layers"]), int(configuration["max_units"])
    units = [INPUTS, *np.linspace(most, OUTPUTS, layers + 1).round().astype(int).tolist()]
    return float(sum((before + 1) * after for before, after in pairwise(units)))


def latency(configuration: Configuration) -> float:
    """Return a latency as it would be measured, with an error that belongs to the configuration."""
    seed = zlib.crc32(repr(sorted(configuration.items())).encode())
    return parameters(configuration) * math.exp(NOISE * np.random.default_rng(seed).normal())


class Case:
    """Searches of one task."""

    def __init__(self, bench: LCBench, task: str, trials: int, bound: float) -> None:
        self.space, self.trials, self.bound = bench.space, trials, bound
        self.curve = bench.curve(task)

    def measured_curve(self, configuration: Configuration, epoch: int) -> tuple[float, float, dict[str, float]]:
        """Return loss, seconds and latency."""
        return (*self.curve(configuration, epoch), {"latency": latency(configuration)})

    def search(self, algorithm: str, form: str, seed: int) -> dict[str, float]:
        """Return the figures of one search."""
        name = {"plain": "", "known": "parameters", "measured": "latency"}[form]
        constraints = (f"{name}<={self.bound}",) if name else ()
        settings = Settings(
            self.space, algorithm, trials=self.trials, epochs=EPOCHS, seed=seed, constraints=constraints
        )
        found = simulate(
            settings,
            self.measured_curve,
            WORKERS,
            costs=lambda configuration: {"parameters": parameters(configuration)},
        )
        breaks = {o.job.trial: parameters(o.job.configuration) > self.bound for o in found.outcomes}
        seconds = [(o.finished - o.started, breaks[o.job.trial]) for o in found.outcomes]
        met = [m.losses[settings.metric] for o in found.outcomes if (m := o.member) and not breaks[o.job.trial]]
        return {
            "time": sum(s for s, broken in seconds if broken) / sum(s for s, _ in seconds),
            "trials": float(np.mean(list(breaks.values()))),
            "again": found.summary.redrawn / self.trials,
            "best": min(met, default=math.nan),
        }


def interval(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """Return the 95 % bootstrap interval of the mean, as text."""
    generator = np.random.default_rng(0)
    means = generator.choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{low:.3f}..{high:.3f}"


def main() -> None:
    """Search, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--share", type=float, default=1 / 3)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.tasks, arguments.trials = 2, 1, 40
    bench = LCBench()
    random = np.random.default_rng(1)
    drawn = [parameters(draw_configuration(bench.space, random)) for _ in range(1000)]
    bound = float(np.round(np.quantile(drawn, arguments.share)))
    tasks = bench.tasks[:: max(1, len(bench.tasks) // arguments.tasks)][: arguments.tasks]
    cases = [Case(bench, task, arguments.trials, bound) for task in tasks]
    rows: list[dict[str, object]] = []
    plain: dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]] = {}
    for algorithm, form in product(ALGORITHMS, FORMS):
        found = [[case.search(algorithm, form, seed) for case in cases] for seed in range(arguments.seeds)]
        figures = {name: np.array([[one[name] for one in row] for row in found]) for name in found[0][0]}
        plain[algorithm] = figures["best"] if form == "plain" else plain[algorithm]
        share, relative = figures["time"].mean(1), (figures["best"] / plain[algorithm]).mean(1)
        rows.append(
            {
                "algorithm": algorithm,
                "constraint": form,
                "time on networks that break it": float(share.mean()),
                "time 95 %": interval(share),
                "trials": float(figures["trials"].mean()),
                "drawn again per trial": float(figures["again"].mean()),
                "best that meets it": float(relative.mean()),
                "best 95 %": interval(relative),
            }
        )
        print(rows[-1], file=sys.stderr)
    settings = {"seeds": arguments.seeds, "tasks": len(tasks), "trials": arguments.trials, "bound": bound}
    note = "best: lowest cross-entropy of trials that meet the bound, relative to the plain search; below 1 is better"
    record("search-constraints" + ("-quick" if arguments.quick else ""), settings, rows, note)


if __name__ == "__main__":
    main()
