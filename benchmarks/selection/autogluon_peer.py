"""AutoGluon's greedy ensemble selection on a saved library; run by the Python of its own environment.

    PYTHON autogluon_peer.py LIBRARY.npz STEPS

Prints one JSON line: seconds, and the members in the order chosen. `speed.py` describes the environment.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main() -> None:
    """Load, fit, print."""
    from autogluon.core.constants import MULTICLASS
    from autogluon.core.metrics import log_loss
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    saved = np.load(sys.argv[1])
    predictions = [np.ascontiguousarray(p) for p in saved["cube"].astype(np.float64)]
    selection = EnsembleSelection(ensemble_size=int(sys.argv[2]), problem_type=MULTICLASS, metric=log_loss)
    selection.use_best = False  # all picks, not those up to the best prefix
    start = time.perf_counter()
    selection.fit(predictions, saved["labels"])
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "order": [int(i) for i in selection.indices_]}))


if __name__ == "__main__":
    main()
