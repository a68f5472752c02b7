"""Which member runs on which device in batches of which size."""

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.plan import AllocationOptions, plan
from ripieno.allocation.problem import PlacementConstraint, check_pins, parse_pins
from ripieno.allocation.refine import Measurement, Refined, refine
from ripieno.allocation.worst_fit import worst_fit

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
