"""Which member runs on which device in batches of which size."""

from ripieno.allocation.costs import Costs
from ripieno.allocation.plan import Options, plan
from ripieno.allocation.problem import Pin, check_pins, parse_pins
from ripieno.allocation.refine import Measurement, Refined, refine
from ripieno.allocation.worst_fit import worst_fit

__all__ = [
    "Costs",
    "Measurement",
    "Options",
    "Pin",
    "Refined",
    "check_pins",
    "parse_pins",
    "plan",
    "refine",
    "worst_fit",
]
