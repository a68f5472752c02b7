"""Step precision: validation loss and speed of trained networks in fp32, bf16 and fp16 on the device.

The reference is the loss in fp32 on the CPU. Speeds are those of larger networks, since those of the digits only keep
a GPU waiting for its next kernel: all precisions are measured in turns.
"""

from __future__ import annotations

import numpy as np
from digits import digit_library
from kit import (
    Options,
    Report,
    local_device,
    median_range,
    random_images,
    read_options,
    time_in_turns,
    weights_path,
    write_networks,
)

from ripieno import backends
from ripieno.data import open_dataset
from ripieno.tasks.metrics import losses
from ripieno.types import Device

PRECISIONS = ("fp32", "bf16", "fp16")
NAMES = ("torch", "torch-graphs")


def main() -> None:
    """Restate the losses, then measure speeds."""
    options = read_options()
    report = Report(options)
    restate_losses(options, report)
    device = local_device(options)
    folder = options.scratch / "precision"
    batch, seconds, rounds = (4, 0.05, 2) if options.dry else (256, 0.5, 5)
    images = random_images(batch)
    chosen = (
        write_networks(folder, options.shapes(12))[-1:]
        if options.dry
        else write_networks(folder, options.shapes(12))[2::3]
    )
    for member in chosen:
        for name in NAMES[: 1 if options.dry else None]:
            loaded = {}
            size = f"width {member.configuration['width']}, {member.configuration['blocks_1']} blocks"
            for precision in PRECISIONS:
                with report.case(network=size, backend=name, precision=precision):
                    one = backends.load(f"{name}:{precision}", weights_path(folder, member), member, device, 1)
                    one.infer(images)
                    loaded[precision] = one
            calls = {precision: (lambda one=one: one.infer(images)) for precision, one in loaded.items()}
            times = time_in_turns(calls, options.device, seconds, rounds)
            exact = np.median(times["fp32"])
            for precision, values in times.items():
                speeds = {f"images_per_s_{k}": v for k, v in median_range([batch / s for s in values]).items()}
                ratio = float(exact / np.median(values))
                report.add(network=size, backend=name, precision=precision, batch=batch, **speeds, x_fp32=ratio)
                loaded[precision].close()


def restate_losses(options: Options, report: Report) -> None:
    """Add the validation loss of each trained member in each precision."""
    library = digit_library(options)
    dataset = open_dataset(library.dataset_path)
    rows = dataset.rows("valid")
    images, labels = np.ascontiguousarray(dataset.inputs[rows]), dataset.targets[rows]
    ranked = sorted(library.members(), key=lambda m: m.loss)
    cpu, device = Device("cpu:0", "cpu", 1 << 33), local_device(options)
    for member in ranked[: 2 if options.dry else 6]:
        path = library.weights_path(member.id)
        one = backends.load("torch", path, member, cpu, 1)
        exact = one.infer(images)
        one.close()
        reference = losses(exact, labels, "valid")
        for precision in PRECISIONS:
            with report.case(network=member.id, precision=precision):
                one = backends.load(f"torch:{precision}", path, member, device, 1)
                answers = one.infer(images)
                one.close()
                found = losses(answers, labels, "valid")
                report.add(
                    network=member.id,
                    precision=precision,
                    cross_entropy=found["valid_cross_entropy"],
                    more_than_on_the_CPU=found["valid_cross_entropy"] - reference["valid_cross_entropy"],
                    accuracy=found["valid_accuracy"],
                    largest_difference=float(np.abs(answers - exact).max()),
                )


if __name__ == "__main__":
    main()
