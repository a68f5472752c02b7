"""Explanation of a stored allocation by the profiles of its run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ripieno.library import Library
from ripieno.pipeline.runs import open_run
from ripieno.types import Allocation

if TYPE_CHECKING:
    from ripieno.allocation.explain import Explanation


def explain(run: str | Path | Library, allocation: str | Allocation) -> Explanation:
    """Explain an allocation: placements, memory used and free, shares of time, and the throughput bottleneck.

    `allocation` is an allocation of the run or its name. Raises LibraryError for an unknown name, AllocationError when
    a profile that the plan used no longer exists.
    """
    from ripieno.allocation.explain import costs_of
    from ripieno.allocation.explain import explain as explain_by

    library = open_run(run)
    chosen = library.allocation(allocation) if isinstance(allocation, str) else allocation
    return explain_by(chosen, costs_of(library, chosen))
