"""Selection of the most accurate ensemble within a cost budget, from predictions alone."""

from ripieno.selection.choice import Choice
from ripieno.selection.costs import round_budget
from ripieno.selection.select import front, select_members

__all__ = ["Choice", "front", "round_budget", "select_members"]
