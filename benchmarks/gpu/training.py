"""Step training: training steps of networks of table 5, as a share of the device's own convolution rate.

A small, a middling and a large network of the paper's space, in its batch size and in a large batch. The variants are
hand-written steps (forward, backward, the project's optimiser) on a batch that stays on the device; the last row of
each network is the project's own trainer, with its data pipeline and light augmentation. A step counts as three
forwards of two operations per multiply-add, as if the backward pass of the first layer were complete. The rate is that
of the best 3 x 3 convolution alone in the same precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from kit import (
    CLASSES,
    SMALL,
    Options,
    Report,
    median_range,
    read_options,
    sized_configurations,
    time_in_turns,
    write_noise,
)
from rates import convolution_rate, set_precision

from ripieno.models.build import build
from ripieno.models.resnet_config import megaflops
from ripieno.train import TrainingConfig
from ripieno.train.optim import make_optimizer, optimizer_config
from ripieno.train.speed import measure_throughput
from ripieno.types import Configuration, classification

LARGE_BATCH = 512
LIGHT = {"flip": True, "max_zoom": 0.1, "max_translation": 0.1, "max_shear": 0.0, "max_channel_shift": 0.0}
LIGHT |= {"max_rotation": 0}


@dataclass(frozen=True)
class Variant:
    """A way of training: precision, layout, compiler, recorded steps."""

    precision: str
    channels_last: bool = False
    compiled: bool = False
    graphs: bool = False

    @property
    def name(self) -> str:
        """Name in tables."""
        parts = [self.precision, *(["channels-last"] if self.channels_last else [])]
        parts += [*(["torch.compile"] if self.compiled else []), *(["CUDA graphs"] if self.graphs else [])]
        return ", ".join(parts)


VARIANTS = (
    Variant("bf16", channels_last=True),
    Variant("tf32", channels_last=True),
    Variant("fp32", channels_last=True),
    Variant("bf16"),
    Variant("tf32"),
    Variant("fp32"),
    Variant("bf16", channels_last=True, graphs=True),
)
COMPILED = (
    Variant("bf16", channels_last=True, compiled=True),
    Variant("bf16", channels_last=True, compiled=True, graphs=True),
)
"""Measured last: the compiler takes a minute or more."""


def main() -> None:
    """Measure the rates, then the networks, the small ones first, then those through the compiler."""
    options = read_options()
    report = Report(options)
    seconds = 0.05 if options.dry else 1.0
    precisions = ("bf16", "tf32", "fp32")
    rates = {p: convolution_rate(options.device, p, seconds, options.dry) for p in precisions}
    report.note(
        "10^12 operations/s of convolutions alone: " + ", ".join(f"{p} {r / 1e12:.4g}" for p, r in rates.items())
    )
    sizes = sized_configurations("resnet-tiny" if options.dry else "resnet-paper")
    for variants in (VARIANTS[:2] if options.dry else VARIANTS, () if options.dry else COMPILED):
        for size, configuration in list(sizes.items())[: 1 if options.dry else None]:
            for batch in (8,) if options.dry else (int(configuration["batch_size"]), LARGE_BATCH):
                measure_network(options, report, size, {**configuration, "batch_size": batch}, variants, rates)


def measure_network(
    options: Options,
    report: Report,
    size: str,
    configuration: Configuration,
    variants: tuple[Variant, ...],
    rates: Mapping[str, float],
) -> None:
    """Add a row for each variant of one network and batch, and one for the project's trainer."""
    seconds = 0.1 if options.dry else 1.0
    batch = int(configuration["batch_size"])
    operations = 6e6 * megaflops(configuration, SMALL)
    row = {"network": size, "million_multiply_adds": operations / 6e6, "batch": batch}
    for variant in variants:
        if options.left() < (90 if variant.compiled else 15) and not options.dry:
            print(f"no time left for {size}, {variant.name}", flush=True)
            return
        with report.case(**row, variant=variant.name):
            call = step_of(options.device, configuration, variant)
            speeds = [batch / s for s in time_in_turns({"": call}, options.device, seconds)[""]]
            add(report, row, variant.name, speeds, operations, rates[variant.precision])
        torch.cuda.empty_cache()
    if options.left() < 20 and not options.dry:
        return
    compiled = any(variant.compiled for variant in variants)
    name = "ripieno's trainer" + ", torch.compile" * compiled
    with report.case(**row, variant=name):
        run = options.scratch / "training"
        noise = write_noise(options.scratch / ("noise-dry" if options.dry else "noise"), 400 if options.dry else 20000)
        config = TrainingConfig(run, noise, "resnet", 1, 0, device=options.device, compiled=compiled)
        light = {**configuration, **LIGHT}
        speeds = [measure_throughput(config, light, seconds).rate for _ in range(1 if options.dry else 3)]
        # on a GPU without bfloat16 it trains in float32 with TF32
        half = options.dry or torch.cuda.is_bf16_supported(including_emulation=False)
        add(report, row, name, speeds, operations, rates["bf16" if half else "tf32"])


def add(
    report: Report, row: Mapping[str, object], variant: str, speeds: list[float], operations: float, rate: float
) -> None:
    """Add a row of speeds and their share of the rate."""
    found = {f"images_per_s_{key}": value for key, value in median_range(speeds).items()}
    share = found["images_per_s_median"] * operations / rate
    report.add(**row, variant=variant, **found, share_of_convolution_rate=share)


def step_of(device: str, configuration: Configuration, variant: Variant) -> Callable[[], object]:
    """Return a call that trains one step on a batch that stays on the device."""
    set_precision(variant.precision)
    torch.manual_seed(0)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    body = (
        build("resnet", configuration, SMALL, classification(CLASSES)).body.to(device).to(memory_format=layout).train()
    )
    optimizer = make_optimizer(optimizer_config(configuration), body)
    if variant.compiled:
        body = torch.compile(body)
    batch = int(configuration["batch_size"])
    images = torch.randn(batch, SMALL.shape[2], *SMALL.shape[:2], device=device).to(memory_format=layout)
    labels = torch.arange(batch, device=device) % len(CLASSES)
    half = variant.precision == "bf16"

    def step() -> torch.Tensor:
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=half):
            logits = body(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return recorded(step, optimizer) if variant.graphs else step


def recorded(step: Callable[[], object], optimizer: torch.optim.Optimizer) -> Callable[[], object]:
    """Record `step` as a CUDA graph; return its replay."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


if __name__ == "__main__":
    main()
