"""Optuna's Gaussian-process sampler, on one thread."""

from __future__ import annotations

from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.trial import FrozenTrial

from ripieno.errors import require


class OneThreadGPSampler(GPSampler):
    """GPSampler on one thread: its matrices are small, and more threads slow it down (measured: six times)."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `GPSampler`."""
        torch = require("torch")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)
