"""Ensembles of agents against single ones: the paper's comparison (arXiv 2208.14338) and the honest one.

    python benchmarks/rl/agents.py [ENVIRONMENT...] [--agents 12] [--libraries homogeneous heterogeneous] [--draws 30]

A library is trained for each environment: homogeneous, one configuration with another seed for each agent, or
heterogeneous, a random search in the space `policy`. Libraries are kept in runs/rl and resumed. All returns are means
over the 12 test seeds; the 12 validation seeds choose. "mean single" is the mean over the agents, with the standard
deviation between them; "drawn of 4" the mean over ensembles of four drawn at random, with that between draws: the
paper's comparison. "best single" is the agent that is best by validation, "top k" the k best by validation, "selected"
what `ripieno select` chooses without a bound: the honest comparison. Intervals are 95 % by the bootstrap over test
seeds. Writes benchmarks/results/rl-agents-ENVIRONMENT-LIBRARY.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
import numpy as np
from record import record

from ripieno import files
from ripieno.environments.rollout import PolicyEnsemble
from ripieno.library import Library
from ripieno.library.rollouts import LibraryRollouts
from ripieno.pipeline import select, tune
from ripieno.search.built_in_spaces import find_space
from ripieno.search.space import Categorical, Continuous, Space, space_to_plain
from ripieno.tasks.action_rules import rules_of, single_rule
from ripieno.types import Combiner, Floats

RUNS = Path(__file__).parents[2] / "runs" / "rl"
DQN = {"algorithm": "dqn", "learning_rate": 1e-3, "exploration_steps": 3000, "train_freq": 4, "activation": "relu"}
DDPG = {"algorithm": "ddpg", "learning_rate": 1e-3, "train_freq": 2, "activation": "relu", "tau": 0.01}
ENVIRONMENTS: dict[str, tuple[str, dict[str, object], int]] = {
    "cartpole": ("gym:CartPole-v1", DQN, 4),
    "acrobot": ("gym:Acrobot-v1", DQN, 4),
    "pendulum": ("gym:Pendulum-v1", DDPG, 3),
    "motor": ("gem:Cont-CC-PermExDc-v0", {**DDPG, "gamma": 0.9}, 3),
}
"""By name: the environment, the one configuration of homogeneous agents, and units of `STEPS` steps of training."""
STEPS = 2500
SIZES = range(1, 9)
BOOTSTRAPS = 2000


def trained(name: str, library: str, agents: int) -> Library:
    """Train a library, or resume its training."""
    environment, configuration, units = ENVIRONMENTS[name]
    run = RUNS / f"{name}-{library}"
    if library == "homogeneous":
        # a space needs a range: agents differ by their seeds alone
        ranges = {"ent_coef": Continuous(0.0, 1e-9)}
        space = Space("one-configuration", "policy", ranges, {**configuration, "steps": STEPS})
    else:
        built_in = find_space("policy")
        fitting = ("ddpg", "sac", "ppo") if configuration["algorithm"] == "ddpg" else ("dqn", "ppo")
        ranges = {**built_in.ranges, "algorithm": Categorical(fitting)}
        space = Space("many-configurations", "policy", ranges, {**built_in.fixed, "steps": STEPS})
    path = RUNS / f"{name}-{library}.json"
    files.write_json(path, space_to_plain(space))
    asked = {"algorithm": "random", "epochs": units, "trials": agents, "pool": "inline", "free": "off"}
    tune(None if (run / "run.json").exists() else environment, run, task="policy", space=path, seed=0, **asked)
    return Library(run)


def interval(returns: Floats) -> str:
    """Return the mean of returns (seeds,) with its 95 % interval by the bootstrap over seeds."""
    drawn = np.random.default_rng(0).choice(returns, (BOOTSTRAPS, len(returns))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{returns.mean():.1f} ({low:.1f} to {high:.1f})"


def compared(name: str, kind: str, agents: int, draws: int) -> None:
    """Compare ensembles of a library with its agents, and write the table."""
    library = trained(name, kind, agents)
    members = [library.member(member) for member in library.ids()]
    last = max(member.epoch for member in members)
    members = [member for member in members if member.epoch == last]
    ids = sorted((m.id for m in members), key=lambda one: library.member(one).loss)
    outputs = {member.id: member.policy for member in members}
    task = members[0].task
    own = single_rule(task)
    generator = np.random.default_rng(0)
    with LibraryRollouts(library) as rollouts:

        def returns(groups: Sequence[Sequence[str]], rule: Combiner) -> Floats:
            return rollouts.run([PolicyEnsemble(tuple(group), rule) for group in groups], "test").returns

        singles = returns([[one] for one in ids], own)
        rows: list[dict[str, object]] = [
            {"agents": "mean single", "rule": "", "return": interval(singles.mean(axis=0)),
             "deviation": float(singles.mean(axis=1).std(ddof=1))},
            {"agents": "best single", "rule": "", "return": interval(singles[0])},
        ]  # fmt: skip
        fours = [generator.choice(ids, 4, replace=False).tolist() for _ in range(draws)]
        for rule in rules_of(task, list(outputs.values())):
            found = returns(fours, rule)
            drawn: dict[str, object] = {"agents": "drawn of 4", "rule": rule, "return": interval(found.mean(axis=0))}
            drawn["deviation"] = float(found.mean(axis=1).std(ddof=1))
            rows.append(drawn)
            for size, one in zip(SIZES, returns([ids[:size] for size in SIZES], rule), strict=True):
                rows.append({"agents": f"top {size}", "rule": rule, "return": interval(one)})
    environment, _, units = ENVIRONMENTS[name]
    settings = {"environment": environment, "library": kind, "agents": len(ids), "steps": units * STEPS, "draws": draws}
    note = "returns of 12 test seeds; validation seeds choose"
    record(f"rl-agents-{name}-{kind}", settings, rows, f"{note}; not yet selected")  # selection may take long
    (chosen,) = select(library, {"parameters": 1e12})
    label = f"selected: {len(chosen.members)}"
    rows.append({"agents": label, "rule": chosen.combiner, "return": interval(np.array(chosen.returns["test"]))})
    record(f"rl-agents-{name}-{kind}", settings, rows, note)


def main() -> None:
    """Compare for each environment and library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="*", default=list(ENVIRONMENTS), metavar="ENVIRONMENT")
    parser.add_argument("--agents", type=int, default=12, help="at least 4")
    parser.add_argument("--libraries", nargs="+", default=["homogeneous", "heterogeneous"])
    parser.add_argument("--draws", type=int, default=30)
    arguments = parser.parse_args()
    for name in arguments.environments:
        if name not in ENVIRONMENTS:
            parser.error(f"environment {name!r} is not one of {', '.join(ENVIRONMENTS)}")
        for kind in arguments.libraries:
            compared(name, kind, arguments.agents, arguments.draws)


if __name__ == "__main__":
    main()
