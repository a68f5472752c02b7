"""Step feed: training with images kept on the device, copied from the host block by block, or prepared by a thread.

The share without data is the time in which the device had no batch to train on. On a CPU there is no resident copy:
the first two rows of a dry run are the same.
"""

from __future__ import annotations

import contextlib
from unittest import mock

from kit import Report, median_range, read_options, sized_configurations, write_noise

from ripieno.train import TrainingConfig, data_pipeline
from ripieno.train.loading_strategy import INLINE, THREAD
from ripieno.train.speed import measure_throughput

AUGMENTATIONS = {
    "none": {},
    "light": {"flip": True, "max_translation": 0.1},
    "warped": {"flip": True, "max_zoom": 0.2, "max_translation": 0.1, "max_rotation": 15},
}
NAMES = ("flip", "max_zoom", "max_translation", "max_shear", "max_channel_shift", "max_rotation")


def main() -> None:
    """Measure each network, augmentation and feed."""
    options = read_options()
    report = Report(options)
    noise = write_noise(options.scratch / ("noise-dry" if options.dry else "noise"), 400 if options.dry else 20000)
    sizes = sized_configurations("resnet-tiny" if options.dry else "resnet")
    run = options.scratch / "feed"
    rounds, seconds = (1, 0.1) if options.dry else (3, 1.0)
    for size in ("small",) if options.dry else ("small", "large"):
        plain = {name: value for name, value in sizes[size].items() if name not in NAMES}
        for augmentation, changes in list(AUGMENTATIONS.items())[: 2 if options.dry else None]:
            configuration = {**plain, **changes, "batch_size": 32 if options.dry else 128}
            taken: dict[str, list[tuple[float, float]]] = {}
            for _ in range(rounds):
                for feed, strategy, resident in (
                    ("resident", INLINE, True),
                    ("from the host", INLINE, False),
                    ("by a thread", THREAD, False),
                ):
                    spare = 3 if strategy == THREAD else 0
                    config = TrainingConfig(run, noise, "resnet", 1, 0, device=options.device, spare=spare)
                    # a device without free memory keeps no images
                    full = mock.patch.object(data_pipeline, "free_bytes", return_value=0)
                    with report.case(network=size, augmentation=augmentation, feed=feed):
                        with contextlib.nullcontext() if resident else full:
                            found = measure_throughput(config, configuration, seconds, strategy)
                        taken.setdefault(feed, []).append((found.rate, found.waited))
            for feed, values in taken.items():
                speeds = {f"images_per_s_{k}": v for k, v in median_range([rate for rate, _ in values]).items()}
                waited = sorted(share for _, share in values)[len(values) // 2]
                report.add(network=size, augmentation=augmentation, feed=feed, **speeds, share_without_data=waited)


if __name__ == "__main__":
    main()
