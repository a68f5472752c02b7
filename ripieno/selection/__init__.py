"""The most accurate ensemble that costs no more than a budget, from predictions alone."""

from ripieno.selection.choice import Choice
from ripieno.selection.select import front, select_members

__all__ = ["Choice", "front", "select_members"]
