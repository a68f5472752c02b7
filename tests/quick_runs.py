"""Trials and measurements at a test's size, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def quick_runs() -> Iterator[None]:
    """Train with one thread a trial, and measure a member for at most a second, not eight.

    On cores shared with other workers, threads of tiny networks mostly wait. Tests of what is measured set their own
    times.
    """
    from ripieno import cluster
    from ripieno.cluster import cpu_slots
    from ripieno.profiles import measure_library

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "cpu_slots", lambda count=None, threads=1: cpu_slots(count, threads))
        for name, seconds in (("window", 0.02), ("max_seconds", 1.0)):
            patch.setitem(measure_library.__kwdefaults__, name, seconds)
        yield
