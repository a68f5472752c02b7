"""Table 3 without the hardware: throughput of an ensemble on 0 to 64 GPUs and a CPU, and where it plateaus.

    python benchmarks/allocation/plateau.py [--quick]

Seven and fourteen networks of timm, by the published speeds of an RTX 3090 and of a CPU (default folder:
../shared/data, next to the checkout; or --tables FOLDER). Each network runs on one device as in the paper, then with
replicas. Writes benchmarks/results/allocation-plateau.{json,txt}.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from record import record

from ripieno.allocation.costs import ProfileCosts
from ripieno.allocation.plan import AllocationOptions
from ripieno.allocation.scale import COUNTS, plateau, scale
from ripieno.profiles import timm_profiles
from ripieno.types import Device

TABLES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "predictions" / "timm"
GPU = Device("cuda:0", "rtx-3090", 24 << 30)
CPU = Device("cpu:0", "i9-10940x-14-cores", 64 << 30, tuple(range(14)))
ENSEMBLES = {
    7: ("resnet18", "resnet26", "resnet34", "resnet50", "resnext50_32x4d", "densenet121", "mobilenetv3_large_100"),
    14: (
        "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "densenet121", "densenet161",
        "mobilenetv3_large_100", "efficientnet_b0", "efficientnet_b1", "convnext_tiny", "convnext_small", "regnety_032",
        "vgg16",
    ),
}  # fmt: skip


def main() -> None:
    """Plan for every number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="7 networks, up to 4 GPUs")
    parser.add_argument("--tables", type=Path, default=TABLES)
    options = parser.parse_args()
    if not options.tables.is_dir():
        sys.exit(f"No tables in {options.tables}. Pass their folder with --tables.")
    gpu = timm_profiles(options.tables / "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv", GPU.kind)
    cpu = timm_profiles(options.tables / "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv", CPU.kind)
    costs = ProfileCosts({GPU.kind: gpu, CPU.kind: cpu})
    rows, notes = [], []
    for size, names in ENSEMBLES.items():
        if options.quick and size > 7:
            continue
        for replicas in (False, True):
            counts = COUNTS if not options.quick else (0, 1, 2, 3, 4)
            begin = time.perf_counter()
            found = scale(names, GPU, [CPU], costs, counts, AllocationOptions(replicas=replicas, lanes=1))
            flat = plateau(found)
            kind = "replicas" if replicas else "one device each"
            took = time.perf_counter() - begin
            ends = f"flat from {flat} GPUs" if flat else "still rising"
            notes.append(f"{size} networks, {kind}: {ends} ({took:.0f} s)")
            rows += [
                {"networks": size, "placing": kind, "GPUs": r.gpus, "worst-fit": r.worst_fit or 0.0,
                 "planned": r.planned or 0.0, "bound": r.bound or 0.0}
                for r in found
            ]  # fmt: skip
    name = "allocation-plateau-quick" if options.quick else "allocation-plateau"
    record(name, {"tables": "timm, RTX 3090 and i9-10940X"}, rows, "; ".join(notes))


if __name__ == "__main__":
    main()
