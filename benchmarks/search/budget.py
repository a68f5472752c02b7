"""Test error of the ensemble under a budget: searches that know it against one that does not, in equal time.

    python benchmarks/search/budget.py [SET] [--minutes 4] [--slots 1] [--seeds 3] [--quantiles Q ...] [--shares S ...]

The budget is a quantile of the FLOPs of networks drawn from the space, so that this share of them fits alone. A search
`told 1` trains nothing above it, one `told 0.5` nothing above half of it: its ensembles have two members at least.
`not told` trains everything. The ensemble of each is selected under the whole budget. `wasted` is the share of the
training time that networks took which alone exceed the budget. Searches are kept under runs/paper/, interrupted ones
resume, seed by seed. Writes benchmarks/results/search-budget.{json,txt}.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "paper"))
import numpy as np
from record import record
from searches import Plan, arguments, plan
from sets import prepared

import ripieno
from ripieno.data import open_dataset
from ripieno.library.evaluate import evaluate
from ripieno.models.configuration_costs import configuration_costs
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.search.built_in_spaces import find_space
from ripieno.selection import round_budget
from ripieno.tasks.metrics import losses
from ripieno.types import Member

DRAWN = 400
"""Configurations whose FLOPs give the quantile."""


def flops_of(member: Member) -> float:
    """Return the FLOPs of a member by closed form."""
    return configuration_costs(member.family, member.configuration, member.input, member.task)["flops"]


def find_budget(asked: Plan, quantile: float) -> float:
    """Return the FLOPs that a share `quantile` of the networks of the space does not exceed."""
    dataset, space = open_dataset(prepared(asked.set, asked.data, asked.images)), find_space(asked.space)
    drawn = sample_configurations(space, 0, DRAWN)
    flops = [configuration_costs(space.family, one, dataset.input, dataset.task)["flops"] for one in drawn]
    return round_budget(float(np.quantile(flops, quantile)), 3)


def judge(run: Path, budget: float) -> dict[str, float]:
    """Return the figures of a search under the budget."""
    library = ripieno.Library(run)
    members = library.members()
    fitting = [m for m in members if flops_of(m) <= budget]
    if not fitting:
        raise SystemExit(f"{run} has no network within the budget of {budget:g} FLOPs: give more --minutes")
    last = {m.trial: m for m in sorted(members, key=lambda m: m.epoch)}.values()
    spent = sum(e.seconds for m in last for e in m.curve)
    wasted = sum(e.seconds for m in last for e in m.curve if flops_of(m) > budget)
    (ensemble,) = ripieno.select(library, {"flops": budget}, prune=1.0)
    metric = ripieno.show(library).metric.replace("-", "_")
    best = min(fitting, key=lambda m: m.loss)
    evaluate(library, [best.id])
    single = losses(library.predictions(best.id, "test"), library.targets("test"), "test")
    return {
        "test error": 100 * (1 - ensemble.losses[f"test_{metric}"]),
        "test cross-entropy": ensemble.losses["test_cross_entropy"],
        "valid cross-entropy": ensemble.losses["valid_cross_entropy"],
        "size": float(len(ensemble.members)),
        "best single": 100 * (1 - single[f"test_{metric}"]),
        "members": float(len(members)),
        "wasted": wasted / spent,
    }


def main() -> None:
    """Search, select, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser, ("hyperband",), 3, 4)
    parser.set_defaults(set="fashion14", slots=1)
    parser.add_argument("--quantiles", type=float, nargs="+", default=[0.25])
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.5])
    given = parser.parse_args()
    asked = plan(given)
    rows: list[dict[str, object]] = []
    for quantile in given.quantiles:
        budget = find_budget(asked, quantile)
        names = {"not told": 0.0, **{f"told {share:g}": share for share in given.shares}}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for seed in range(given.seeds):
            for name, share in names.items():
                bound = {"budget": {"flops": share * budget}} if share else {}
                label = f"flops{share * budget:.3g}" if share else given.algorithms[0]
                run = asked.search(given.algorithms[0], seed, name=label, **bound)
                found[name].append(judge(run, budget))
                print(f"budget {budget:g} seed {seed} {name}: {found[name][-1]}", file=sys.stderr)
        for name, judged in found.items():
            row: dict[str, object] = {"flops": budget, "fits": quantile, "search": name, "seeds": len(judged)}
            errors = [one["test error"] for one in judged]
            base = [one["test error"] for one in found["not told"]]
            row |= {key: statistics.fmean(one[key] for one in judged) for key in judged[0]}
            row |= {
                "lowest": min(errors),
                "highest": max(errors),
                "difference": statistics.fmean(errors) - statistics.fmean(base),
            }
            rows.append(row)
    settings = {"set": asked.set, "space": asked.space, "minutes": asked.minutes, "slots": asked.slots}
    record("search-budget", settings, rows, "means over seeds; difference: of the test error from `not told`")


if __name__ == "__main__":
    main()
