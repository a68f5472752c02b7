"""Step energy: joules of prediction and of training on the device, by NVML's counter.

Idle power is measured first. "Above idle" leaves out what the idle device would have used in the same time. A dry run
has no counter: it counts zero joules.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from kit import (
    Options,
    Report,
    local_device,
    random_images,
    read_options,
    sized_configurations,
    synchronize,
    weights_path,
    write_networks,
    write_noise,
)

from ripieno import backends
from ripieno.errors import EngineError
from ripieno.profiles.energy import GPUCounter, settle
from ripieno.types import COST_SAMPLES

BACKENDS = ("torch", "torch:bf16", "torch:fp16", "torch-graphs", "torch-graphs:bf16")


class NoCounter:
    """Stand-in for the counter in a dry run."""

    def joules(self) -> float:
        """Return zero joules."""
        return 0.0

    def watts(self) -> float:
        """Return zero watts."""
        return 0.0


def main() -> None:
    """Measure idle power, prediction, training."""
    options = read_options()
    report = Report(options)
    try:
        counter = NoCounter() if options.dry else GPUCounter(str(torch.cuda.get_device_properties(0).uuid))
    except EngineError as error:
        report.skip(str(error))
    seconds = 0.05 if options.dry else 4.0
    torch.zeros(1, device=options.device)
    joules, took = spent(counter, lambda: time.sleep(0.01), options.device, seconds)[:2]
    idle = joules / took
    report.add(what="idle, with a CUDA context", watts=idle, reported_watts=counter.watts())
    with report.case(what="prediction"):
        measure_prediction(options, report, counter, idle, seconds)
    with report.case(what="training"):
        measure_training(options, report, counter, idle, seconds)


def read(counter: GPUCounter | NoCounter) -> float:
    """Return the joules of a counter at its next step."""
    return 0.0 if isinstance(counter, NoCounter) else settle(counter)


def spent(
    counter: GPUCounter | NoCounter, call: Callable[[], object], device: str, seconds: float
) -> tuple[float, float, int]:
    """Repeat `call` for `seconds`; return joules, seconds and the number of calls."""
    call()
    synchronize(device)
    before, began, count = read(counter), time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call()
        count += 1
    synchronize(device)
    after = read(counter)
    return after - before, time.perf_counter() - began, count


def measure_prediction(
    options: Options, report: Report, counter: GPUCounter | NoCounter, idle: float, seconds: float
) -> None:
    """Add joules for 2,000 samples by network, backend and batch size."""
    folder = options.scratch / "energy"
    members, device = write_networks(folder, options.shapes(12)), local_device(options)
    for member in members[:1] if options.dry else (members[0], members[4], members[11]):
        name = f"width {member.configuration['width']}, {member.configuration['blocks_1']} blocks"
        for backend in BACKENDS[: 1 if options.dry else None]:
            with report.case(what=name, backend=backend):
                one = backends.load(backend, weights_path(folder, member), member, device, 1)
                for batch in (4,) if options.dry else (32, 512):
                    images = random_images(batch)
                    joules, took, count = spent(counter, lambda: one.infer(images), options.device, seconds)  # noqa: B023
                    scale = COST_SAMPLES / (count * batch)
                    report.add(what=name, backend=backend, batch=batch, watts=joules / took,
                               joules_per_2000=joules * scale, above_idle=(joules - idle * took) * scale,
                               seconds_per_2000=took * scale)  # fmt: skip
                one.close()


def measure_training(
    options: Options, report: Report, counter: GPUCounter | NoCounter, idle: float, seconds: float
) -> None:
    """Add joules for an epoch of 48,000 images by the project's trainer."""
    from ripieno.train import TrainingConfig
    from ripieno.train.speed import measure_throughput

    noise = write_noise(options.scratch / ("noise-dry" if options.dry else "noise"), 400 if options.dry else 20000)
    sizes = sized_configurations("resnet-tiny" if options.dry else "resnet")
    for size, configuration in list(sizes.items())[: 1 if options.dry else None]:
        config = TrainingConfig(options.scratch / "energy", noise, "resnet", 1, 0, device=options.device)
        started: list[float] = []
        begun: list[float] = []

        def ready(started: list[float] = started, begun: list[float] = begun) -> None:
            started.append(read(counter))
            begun.append(time.perf_counter())

        with report.case(what=f"training, {size}"):
            batch = {"batch_size": 32} if options.dry else {}
            rate = measure_throughput(config, {**configuration, **batch}, seconds, ready=ready).rate
            joules, took = read(counter) - started[0], time.perf_counter() - begun[0]
            scale = 48_000 / (rate * took)
            report.add(what=f"training, {size}", images_per_s=rate, watts=joules / took,
                       joules_per_epoch=joules * scale, above_idle=(joules - idle * took) * scale)  # fmt: skip


if __name__ == "__main__":
    main()
