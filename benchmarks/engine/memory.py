"""Resident memory of an engine's whole process tree, against the weights it holds.

    python benchmarks/engine/memory.py [--quick]

Networks of 0.3 to 10 MiB of weights, all in each of two workers, in batches of 64. Each case runs in a fresh
process. Figures are proportional set sizes (PSS: a page shared by n processes counts 1/n in each, so the tree's sum
counts it once); `own` is the sum of the unshared memory of each process (USS). `x weights` is the memory added to the
bare imports, over the weights. Writes benchmarks/results/engine-memory.{json,txt}.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from networks import SHAPE, Size, lay_out, write_members
from record import record

from ripieno.engine import Engine

MIB = 1 << 20
TWELVE = tuple(Size(width, blocks) for blocks in (1, 2, 3, 4) for width in (16, 32, 48))


def held(folder: str, count: int, lanes: int, isolation: str, samples: int) -> dict[str, float]:
    """Return MiB of the tree: imports only, engine up, after `samples` samples, and after them again."""
    base = _tree()
    members, _ = write_members(Path(folder), TWELVE[:count])
    bundle = lay_out(Path(folder), members, [range(count)] * lanes, 64, lanes)
    with Engine(bundle, isolation=isolation) as engine:
        up = _tree()
        images = np.random.default_rng(0).integers(0, 256, (samples, *SHAPE), np.uint8)
        engine.predict(images)
        loaded = _tree() - images.nbytes / MIB
        engine.predict(images)
        again, own = (_tree(kind) - images.nbytes / MIB for kind in ("pss", "uss"))
    return {"imports": base, "up": up, "after load": loaded, "after twice": again, "own": own}


def _tree(kind: str = "pss") -> float:
    parent = psutil.Process()
    family = [parent, *parent.children(recursive=True)]
    return sum(getattr(p.memory_full_info(), kind) for p in family) / MIB


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", help="internal: the case a child process measures")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(held(*json.loads(options.case))))
        return
    rows = []
    for count in (4, 7, 12):
        for isolation in ("thread", "process"):
            with tempfile.TemporaryDirectory() as folder:
                case = json.dumps([folder, count, 2, isolation, 256 if options.quick else 2048])
                command = [sys.executable, __file__, "--case", case]
                print(f"{count} members, {isolation} workers ...", file=sys.stderr, flush=True)
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
                if done.returncode:
                    sys.exit(f"{count} members, {isolation} workers: exit code {done.returncode}, see above")
                weights = sum(p.stat().st_size for p in Path(folder).rglob("model.onnx")) / MIB
            figures = json.loads(done.stdout)
            rows.append(
                {
                    "members": count,
                    "isolation": isolation,
                    "lanes": 2,
                    "weights MiB": weights,
                    **{f"{k} MiB": v for k, v in figures.items()},
                    "x weights": (figures["after twice"] - figures["imports"]) / weights,
                }
            )
    record("engine-memory" + "-quick" * options.quick, {"lanes": 2}, rows)


if __name__ == "__main__":
    main()
