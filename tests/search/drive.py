"""A search in its own process, to be killed: `drive.py RUN TRIALS EPOCHS SLOTS SECONDS`."""

from __future__ import annotations

import sys
from functools import partial

import synthetic

from ripieno.cluster import LocalPool
from ripieno.library import Library
from ripieno.search import Settings, run_search

run, trials, epochs, slots, seconds = sys.argv[1:]
pool = LocalPool(partial(synthetic.work, run, float(seconds)), int(slots))
settings = Settings(synthetic.SPACE, trials=int(trials), epochs=int(epochs), window=4)
try:
    summary = run_search(Library(run), settings, pool, weight=synthetic.weight)
    sys.stdout.write(f"{summary.ended} {summary.jobs} {summary.members} {summary.failures}\n")
except KeyboardInterrupt:
    sys.exit(130)
finally:
    pool.close()
