"""Step packing: images per second of 1 to 4 trials that share one device, by the project's own profile of packs."""

from __future__ import annotations

import os

from kit import Report, read_options, sized_configurations, write_noise

from ripieno.pipeline.trial_packing import PackingConfig, predicted
from ripieno.pipeline.trial_packing_benchmark import profile
from ripieno.train import TrainingConfig


def main() -> None:
    """Measure every pack twice, in turns."""
    options = read_options()
    report = Report(options)
    noise = write_noise(options.scratch / ("noise-dry" if options.dry else "noise"), 400 if options.dry else 20000)
    run = options.scratch / "packing"
    config = TrainingConfig(run, noise, "resnet", 1, 0, device="cpu" if options.dry else "cuda")
    sizes = sized_configurations("resnet-tiny" if options.dry else "resnet")
    if options.dry:
        sizes = {"small": {**sizes["small"], "batch_size": 32}}
    cores = len(os.sched_getaffinity(0))
    packs = [PackingConfig(n, 1, max(0, min(3, cores // n - 1))) for n in ((1, 2) if options.dry else (1, 2, 3, 4))]
    gpus = [] if options.dry else ["0"]
    for turn in range(1 if options.dry else 2):
        with report.case(turn=turn + 1):
            rates = profile(config, packs, sizes, gpus, 0.2 if options.dry else 3.0)
            alone = {rate.size: rate.images for rate in rates if rate.pack == packs[0]}
            for rate in rates:
                row = {} if rate.images else {"error": "a trial of the pack failed"}
                ratio = rate.images / alone[rate.size] if alone[rate.size] else 0.0
                report.add(turn=turn + 1, trials=rate.pack.slots, threads_for_data=rate.pack.spare, network=rate.size,
                           images_per_s=rate.images, x_one_trial=ratio, **row)  # fmt: skip
            for pack in packs:
                report.add(turn=turn + 1, trials=pack.slots, threads_for_data=pack.spare, network="all sizes",
                           images_per_s=predicted(pack, rates))  # fmt: skip


if __name__ == "__main__":
    main()
