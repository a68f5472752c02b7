"""What a slot of a Ray cluster is made of."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Sequence
from typing import Any

from ripieno.cluster.pool import Function
from ripieno.cluster.start import write_to
from ripieno.cluster.worker import perform
from ripieno.types import Job, Outcome


class Actor:
    """What runs in a slot: the function, and jobs handed to it one by one."""

    def __init__(self, paths: Sequence[str], function: Sequence[Any], log: str) -> None:
        import ray

        if log:
            write_to(log)
        faulthandler.enable(2)
        sys.path += [path for path in paths if path not in sys.path]
        self._function: Function = ray.get(function[0])

    def ready(self) -> bool:
        """Answered when the slot is up."""
        return True

    def run(self, job: Job) -> Outcome:
        """Never raises: what the job raises is its failure."""
        return perform(self._function, job)
