"""What requests may ask for, checked once and kept: by which members, in turn or all at once, with what beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ripieno.engine.inference_result import Answer
from ripieno.engine.request import ExecutionPlan
from ripieno.errors import EngineError
from ripieno.types import Bundle, Cascade


class PlanCache:
    """The plans of a bundle's requests; `cascade` is the one they are answered by unless they ask for something else.

    Raises EngineError when the cascade cannot answer for the bundle.
    """

    def __init__(self, bundle: Bundle, cascade: Cascade | None) -> None:
        self._bundle, self._cascade = bundle, cascade
        self.indices = {member: i for i, member in enumerate(bundle.ensemble.members)}
        """by member's id"""
        self._known: dict[tuple[object, ...], ExecutionPlan] = {}
        if cascade is None:
            return
        if bundle.ensemble.combiner not in ("mean", "weighted"):
            raise EngineError(
                f"a cascade answers with a mean, this ensemble with a {bundle.ensemble.combiner}: drop it"
            )
        if sorted(cascade.order) != sorted(self.indices):
            raise EngineError("the cascade orders other members than the bundle has: plan it again")

    def find(self, members: Sequence[str] | None, spread: bool, each: bool, cascade: bool | None) -> ExecutionPlan:
        """The plan for a request; see `Engine.submit`, also for what is raised."""
        key = (None if members is None else tuple(members), spread, each, cascade)
        plan = self._known.get(key)
        if plan is None:
            plan = self._known[key] = self._make(members, spread, each, cascade)
        return plan

    def nothing(self, plan: ExecutionPlan) -> Answer:
        """The answer to no samples."""
        names = tuple(self._bundle.ensemble.members[m] for m in plan.members)
        none = np.empty((0, len(self._bundle.classes)), np.float32)
        each = np.empty((len(names), *none.shape), np.float32) if plan.each else None
        depth = None if plan.threshold is None else np.empty(0, np.int32)
        return Answer(none, names, False, none[:, 0] if plan.spread else None, each, depth)

    def _make(self, members: Sequence[str] | None, spread: bool, each: bool, cascade: bool | None) -> ExecutionPlan:
        names = tuple(self.indices) if members is None else tuple(members)
        unknown = [m for m in names if m not in self.indices]
        if unknown or not names or len(set(names)) < len(names):
            wrong = f"no member {unknown[0]!r}" if unknown else "members must be named once each, at least one"
            raise EngineError(f"{wrong}; there are: {', '.join(self.indices)}")
        if cascade is None:
            # whoever names members, or wants to know what each says, wants to hear them all
            cascade = self._cascade is not None and members is None and not spread and not each
        if not cascade:
            return ExecutionPlan(tuple(sorted(self.indices[m] for m in names)), spread, each)
        if self._cascade is None:
            raise EngineError("this engine has no cascade: `ripieno cascade RUN BUNDLE` plans one")
        if spread or each:
            raise EngineError("a cascade answers with a mean alone, without spread or members' answers: ask for less")
        order = tuple(self.indices[m] for m in self._cascade.order if m in names)
        return ExecutionPlan(order, threshold=self._cascade.threshold)
