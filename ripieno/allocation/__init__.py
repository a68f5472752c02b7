"""Allocation of members to devices, with batch sizes and replicas."""

from typing import TYPE_CHECKING, Any

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.plan import AllocationOptions, plan
from ripieno.allocation.problem import PlacementConstraint, check_pins, parse_pins
from ripieno.allocation.refine import Measurement, Refined, refine
from ripieno.allocation.worst_fit import worst_fit
from ripieno.deprecation import find_renamed

__all__ = [
    "AllocationOptions",
    "Measurement",
    "PlacementConstraint",
    "ProfileCosts",
    "Refined",
    "check_pins",
    "parse_pins",
    "plan",
    "refine",
    "worst_fit",
]

if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(
            globals(), {"Options": "AllocationOptions", "Costs": "ProfileCosts", "Pin": "PlacementConstraint"}, name
        )
