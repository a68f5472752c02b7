"""Library of policies -> ensembles: the highest return for each budget, by rollouts from the validation seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ripieno.environments.rollout import PolicyEnsemble
from ripieno.errors import SelectionError
from ripieno.library import Library
from ripieno.library.cost_table import CostTable
from ripieno.library.rollouts import LibraryRollouts, policies_of, write_test_returns
from ripieno.pipeline.budgets import Budget, affordable, bounds_of, kinds_of, name_of
from ripieno.pipeline.costs import check_kinds, cost_table, ensure_profiles
from ripieno.pipeline.runs import ProgressFunction, default_kind
from ripieno.selection.returns import SIZE, Picks, PolicyCandidate, ReturnSelection
from ripieno.tasks.action_rules import check_rule, rules_of
from ripieno.tasks.registry import TASKS
from ripieno.types import Combiner, Ensemble, Floats, Front, Split

KIND = TASKS["policy"]
LOSS = "negative-return"
METHODS = ("replacement", "top-k", "best")
"""Nested and then greedy with replacement; nested alone; the best policy."""


@dataclasses.dataclass(frozen=True)
class PolicySelectionOptions:
    """Arguments of `select` and `front` that policies heed."""

    method: str | None
    combiner: Combiner | None
    size: int | None
    prune: float
    device: str
    test: bool
    trusted: tuple[str, ...]
    progress: ProgressFunction

    @property
    def used_method(self) -> str:
        """Name of the method."""
        return self.method or METHODS[0]


def check_policy_options(given: Mapping[str, object]) -> None:
    """Raise SelectionError for an argument of `select` that policies do not have; None, False and () are none."""
    for name, value in given.items():
        if value not in (None, False, ()):
            raise SelectionError(f"{name}={value!r} does not fit policies: they are selected by returns of episodes")


def select_policies(
    library: Library, budgets: Sequence[Budget] | None, options: PolicySelectionOptions, notes: list[str]
) -> list[Ensemble]:
    """Select the ensemble of the highest mean return within each budget; see `ripieno.selection.returns`.

    The arguments are those of `ripieno.pipeline.select`.
    """
    from ripieno.selection import round_budget

    plain = default_kind(library.members())
    kinds = kinds_of(budgets, plain)
    with _PolicyPool(library, kinds, options) as pool:
        if budgets is None:
            best = min(pool.ids, key=lambda member: (library.member(member).loss, member))
            cost = pool.table.alone(plain)[best]
            budgets = [round_budget(k * cost) for k in (1, 2, 4, 8)]
        budgets = affordable(budgets, plain, {kind: list(pool.table.alone(kind).values()) for kind in kinds}, notes)
        bounds = [bounds_of(budget, plain) for budget in budgets]
        choices = pool.selection.select(bounds)
        words = (options.method, LOSS, options.combiner or "mean", None, KIND)
        named = [
            choice.ensemble(name_of(budget, *words), pool.ids, bound, options.used_method, LOSS)
            for choice, bound, budget in zip(choices, bounds, budgets, strict=True)
        ]
        return pool.evaluated(named)


def policy_front(library: Library, kind: str, points: int, options: PolicySelectionOptions) -> Front:
    """Select the ensemble of the highest mean return for every budget of one kind of cost."""
    with _PolicyPool(library, (kind,), options) as pool:
        choices = pool.selection.front(kind, points)
        named = [
            choice.ensemble(
                f"front-{number:02d}", pool.ids, {kind: choice.cost}, options.used_method, "negative-return"
            )
            for number, choice in enumerate(choices)
        ]
        return Front(kind, options.used_method, tuple(pool.evaluated(named)))


def reevaluated(library: Library, ensemble: Ensemble, trusted: Collection[str] = ()) -> Ensemble:
    """Return an ensemble of policies with the losses of its members' episodes, run again."""
    with LibraryRollouts(library, trusted) as rollouts:
        return _with_returns(library, rollouts, [ensemble], ("valid", "test"))[0]


class _PolicyPool:
    """Policies of a library with their costs, and their selection by rollouts from the validation seeds."""

    def __init__(self, library: Library, kinds: Sequence[str], options: PolicySelectionOptions):
        from ripieno.profiles import local_devices

        if options.used_method not in METHODS:
            raise SelectionError(
                f"method {options.method!r} does not fit policies: expected one of {', '.join(METHODS)}"
            )
        if options.size is not None and options.size < 1:
            raise SelectionError(f"size {options.size} is not valid: an ensemble has one member or more")
        check_kinds(library, kinds)
        task = library.members()[0].task
        if options.combiner is not None:
            check_rule(options.combiner, task)
        device = local_devices(options.device)[0]
        ensure_profiles(library, kinds, options.prune, device, progress=options.progress)
        self.library, self.options = library, options
        self.table: CostTable = cost_table(library, kinds, device.kind)
        self.ids = sorted(self.table.own)
        outputs = [library.member(member).policy for member in self.ids]

        def rules(picks: Picks) -> Sequence[Combiner]:
            if options.combiner is None:
                return rules_of(task, [outputs[p] for p in picks])
            check_rule(options.combiner, task, [outputs[p] for p in picks])
            return (options.combiner,)

        if options.combiner is not None:
            check_rule(options.combiner, task, outputs)
        self._rollouts = LibraryRollouts(library, options.trusted)
        size = 1 if options.used_method == "best" else options.size or SIZE
        own = np.stack([np.asarray(library.predictions(member), np.float64).reshape(-1) for member in self.ids])
        greedy = options.used_method == METHODS[0]
        self.selection = ReturnSelection(own, rules, self._cost, self._run, size=size, greedy=greedy)

    def __enter__(self) -> _PolicyPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._rollouts.close()

    def _cost(self, picks: Iterable[int]) -> dict[str, float]:
        return self.table.total(self.ids[p] for p in picks)

    def _run(self, candidates: Sequence[PolicyCandidate]) -> Floats:
        ensembles = []
        for candidate in candidates:
            weights = candidate.weights
            rule: Combiner = "weighted" if candidate.rule == "mean" else candidate.rule
            ensembles.append(PolicyEnsemble(tuple(self.ids[p] for p in weights), rule, tuple(weights.values())))
        return self._rollouts.run(ensembles, "valid", self.options.progress).returns

    def evaluated(self, ensembles: Sequence[Ensemble]) -> list[Ensemble]:
        """Return ensembles with returns and losses, with `test` of the test seeds too, which never select."""
        splits: tuple[Split, ...] = ("valid", "test") if self.options.test else ("valid",)
        if self.options.test:
            members = sorted({member for ensemble in ensembles for member in ensemble.members})
            write_test_returns(self.library, self._rollouts, members, self.options.progress)
        return _with_returns(self.library, self._rollouts, ensembles, splits)


def _with_returns(
    library: Library, rollouts: LibraryRollouts, ensembles: Sequence[Ensemble], splits: Sequence[Split]
) -> list[Ensemble]:
    """Return ensembles with the returns of their episodes from the seeds of `splits`, and the losses."""
    changed = list(ensembles)
    for split in splits:
        if not len(seeds := rollouts.seeds(split)):
            continue
        found = rollouts.run([policies_of(library, ensemble) for ensemble in ensembles], split)
        for index, returns in enumerate(found.returns):
            losses = KIND.losses(returns[:, None], seeds[:, None], rollouts.task, split)
            kept = {**changed[index].returns, split: tuple(returns.tolist())}
            changed[index] = dataclasses.replace(
                changed[index], losses={**changed[index].losses, **losses}, returns=kept
            )
    return changed
