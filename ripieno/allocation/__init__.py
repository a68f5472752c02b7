"""Allocation of members to devices, with batch sizes and replicas."""

from typing import TYPE_CHECKING, Any

from ripieno.allocation.costs import ProfileCosts as ProfileCosts
from ripieno.allocation.plan import AllocationOptions as AllocationOptions
from ripieno.allocation.plan import plan as plan
from ripieno.allocation.problem import PlacementConstraint as PlacementConstraint
from ripieno.allocation.problem import check_pins as check_pins
from ripieno.allocation.problem import parse_pins as parse_pins
from ripieno.allocation.refine import Measurement as Measurement
from ripieno.allocation.refine import Refined as Refined
from ripieno.allocation.refine import refine as refine
from ripieno.allocation.worst_fit import worst_fit as worst_fit
from ripieno.deprecation import find_renamed

if not TYPE_CHECKING:  # a type checker would take every name for an attribute of this module

    def __getattr__(name: str) -> Any:
        return find_renamed(
            globals(), {"Options": "AllocationOptions", "Costs": "ProfileCosts", "Pin": "PlacementConstraint"}, name
        )
