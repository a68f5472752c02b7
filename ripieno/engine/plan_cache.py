"""Checked and cached options of requests: their members, with or without the cascade, and additional outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ripieno.engine.cascade import check_confidence
from ripieno.engine.inference_result import Answer
from ripieno.engine.request import ExecutionPlan
from ripieno.errors import EngineError
from ripieno.tasks.registry import kind_of
from ripieno.types import Bundle, Cascade


class PlanCache:
    """Execution plans of requests, by default with `cascade`. Raises EngineError when it does not fit the bundle."""

    def __init__(self, bundle: Bundle, cascade: Cascade | None, units: Sequence[Sequence[int]]) -> None:
        self._bundle, self._cascade = bundle, cascade
        self._unit_of = {member: unit for unit, members in enumerate(units) for member in members}
        self.indices = {member: i for i, member in enumerate(bundle.ensemble.members)}
        """by member's id"""
        self._known: dict[tuple[object, ...], ExecutionPlan] = {}
        if cascade is None:
            return
        if bundle.ensemble.combiner not in ("mean", "weighted"):
            raise EngineError(
                f"A cascade combines by mean, but this ensemble by {bundle.ensemble.combiner}. Remove the cascade."
            )
        check_confidence(bundle.task)
        if sorted(cascade.order) != sorted(self.indices):
            raise EngineError("The cascade has other members than the bundle. Plan it again.")

    def find(
        self, members: Sequence[str] | None, spread: bool, each: bool, disagreement: bool, cascade: bool | None
    ) -> ExecutionPlan:
        """Return the plan for a request; see `Engine.submit` for the arguments and errors."""
        key = (None if members is None else tuple(members), spread, each, disagreement, cascade)
        plan = self._known.get(key)
        if plan is None:
            plan = self._known[key] = self._make(members, spread, each, disagreement, cascade)
        return plan

    def nothing(self, plan: ExecutionPlan) -> Answer:
        """Return the answer to a request without samples."""
        names = tuple(self._bundle.ensemble.members[m] for m in plan.members)
        each = np.empty((len(names), 0, *self._bundle.task.output), np.float32)
        depth = None if plan.threshold is None else np.empty(0, np.int32)
        spread = kind_of(self._bundle.task).spread(each, each[0], np.ones(len(names))) if plan.spread else None
        disagreement = np.empty(0, np.float32) if plan.disagreement else None
        return Answer(each[0], names, False, spread, each if plan.each else None, depth, disagreement)

    def _make(
        self, members: Sequence[str] | None, spread: bool, each: bool, disagreement: bool, cascade: bool | None
    ) -> ExecutionPlan:
        names = tuple(self.indices) if members is None else tuple(members)
        unknown = [m for m in names if m not in self.indices]
        if unknown or not names or len(set(names)) < len(names):
            wrong = f"Unknown member {unknown[0]!r}" if unknown else "members must name at least one, each once"
            raise EngineError(f"{wrong}. The members are: {', '.join(self.indices)}")
        needs_all = spread or each or disagreement
        if cascade is None:
            # a request that names members, or asks how they differ, needs all of them
            cascade = self._cascade is not None and members is None and not needs_all
        # a member alone is no ensemble: its predictions are at its own temperature only
        alone = len(names) == 1 < len(self.indices)
        temperature = 1.0 if alone else self._bundle.ensemble.temperature
        if not cascade:
            chosen = tuple(sorted(self.indices[m] for m in names))
            return ExecutionPlan(chosen, spread, each, disagreement, None, temperature, self._units(chosen))
        if self._cascade is None:
            raise EngineError("This engine has no cascade. Plan one with `ripieno cascade RUN BUNDLE`.")
        if needs_all:
            raise EngineError(
                "A cascade returns the mean only. Request neither spread, disagreement nor member predictions with it."
            )
        order = tuple(self.indices[m] for m in self._cascade.order if m in names)
        threshold = self._cascade.threshold
        return ExecutionPlan(order, threshold=threshold, temperature=temperature, units=self._units(order))

    def _units(self, members: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """Return `members` by unit, the unit of the first member first."""
        units: dict[int, tuple[int, ...]] = {}
        for member in members:
            unit = self._unit_of[member]
            units[unit] = (*units.get(unit, ()), member)
        return units
