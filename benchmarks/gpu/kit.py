"""Common parts of the steps: their options, rows of results, the device, networks to measure."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ripieno.types import (
    Allocation,
    Bundle,
    Configuration,
    Dataset,
    Device,
    Ensemble,
    Input,
    Member,
    Placement,
    classification,
)

CLASSES = tuple(f"class{i}" for i in range(100))
SMALL = Input((32, 32, 3))
"""Images of CIFAR's size."""
SHAPES = ((16, 1), (16, 2), (32, 1), (32, 2), (32, 4), (64, 1), (64, 2), (16, 3), (32, 3), (48, 1), (48, 2), (64, 3))
"""Width and blocks per stage of the networks; the first 4 or 7 make smaller ensembles."""
DRY_SHAPES = tuple((4, 1 + i % 2) for i in range(12))
"""The same for a dry run."""


@dataclass(frozen=True)
class Options:
    """Options of a step, given by `run`."""

    step: str
    out: Path
    """file of its report"""
    scratch: Path
    data: Path
    seconds: float
    slice: int
    dry: bool
    began: float

    @property
    def device(self) -> str:
        """Name of the measured device: `cuda:0`, in a dry run `cpu`."""
        return "cpu" if self.dry else "cuda:0"

    def left(self) -> float:
        """Return the seconds that remain of the step."""
        return self.seconds - (time.monotonic() - self.began)

    def shapes(self, count: int) -> Sequence[tuple[int, int]]:
        """Return width and blocks of `count` networks."""
        return (DRY_SHAPES if self.dry else SHAPES)[:count]


def read_options() -> Options:
    """Read the command line of a step; skip the step where it needs a GPU and there is none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step")
    for name in ("out", "scratch", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=450.0)
    parser.add_argument("--slice", type=int, default=1)
    parser.add_argument("--dry", action="store_true")
    options = Options(**vars(parser.parse_args()), began=time.monotonic())
    if not options.dry:
        import torch

        if not torch.cuda.is_available():
            Report(options).skip("PyTorch sees no GPU here")
    return options


class Report:
    """Rows of a step, printed and written one by one, so that a step that is ended keeps those it has."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.rows: list[dict[str, Any]] = []
        self.remark = ""

    def add(self, **row: Any) -> None:
        """Add a row; an underscore in a keyword becomes a space."""
        self.rows.append({key.replace("_", " "): plain(value) for key, value in row.items()})
        print(", ".join(f"{key} {text(value)}" for key, value in self.rows[-1].items()), flush=True)
        self._write()

    def note(self, remark: str) -> None:
        """Set the remark under the table."""
        self.remark = remark
        self._write()

    def skip(self, reason: str) -> NoReturn:
        """End the step as skipped."""
        self._write(skipped=reason)
        print(f"skipped: {reason}", flush=True)
        sys.exit(0)

    @contextlib.contextmanager
    def case(self, **row: Any) -> Iterator[None]:
        """Run one measurement: an error becomes a row of its own, and the others go on."""
        try:
            yield
        except Exception as error:  # a new kind of device may break anything
            traceback.print_exc(file=sys.stdout)
            lines = f"{type(error).__name__}: {error}".strip().splitlines()
            self.add(**row, error=lines[0][:300])

    def _write(self, **more: str) -> None:
        content = {"rows": self.rows, "note": self.remark, **more}
        beside = self.options.out.with_suffix(".part")
        beside.write_text(json.dumps(content))
        os.replace(beside, self.options.out)


def plain(value: Any) -> Any:
    """Return a value that JSON can hold."""
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def text(value: Any) -> str:
    """Return a value as printed: four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def synchronize(device: str) -> None:
    """Wait until the device has done its work."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)


def time_in_turns(
    calls: Mapping[str, Callable[[], object]], device: str, seconds: float, rounds: int = 3
) -> dict[str, list[float]]:
    """Return seconds of a call by name, one value per round; all calls are measured in each round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    at_once = {}
    for name, call in calls.items():
        for _ in range(3):  # the last one is timed
            synchronize(device)
            began = time.perf_counter()
            call()
            synchronize(device)
        # enough calls between two waits that a wait costs little
        at_once[name] = max(1, min(64, int(0.02 / (time.perf_counter() - began))))
    for _ in range(rounds):
        for name, call in calls.items():
            synchronize(device)
            count, began = 0, time.perf_counter()
            while not count or time.perf_counter() - began < seconds:
                for _ in range(at_once[name]):
                    call()
                synchronize(device)
                count += at_once[name]
            found[name].append((time.perf_counter() - began) / count)
    return found


def median_range(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and largest value as columns."""
    return {"median": statistics.median(values), "from": min(values), "to": max(values)}


def local_device(options: Options) -> Device:
    """Return the measured device; in a dry run one core, since the CPU may be busy and threads would wait in turn."""
    from ripieno.profiles import local_devices

    found = local_devices(options.device)[0]
    return dataclasses.replace(found, cores=found.cores[:1]) if options.dry else found


def write_networks(
    folder: Path, shapes: Sequence[tuple[int, int]], input: Input = SMALL, classes: Sequence[str] = CLASSES
) -> list[Member]:
    """Write residual networks of random weights (width, blocks per stage) as a bundle stores them."""
    import torch

    from ripieno import files
    from ripieno.models.build import build
    from ripieno.train.checkpoint import weights_bytes

    members = []
    torch.manual_seed(0)
    for index, (width, blocks) in enumerate(shapes):
        stages = {f"blocks_{stage}": blocks for stage in (1, 2, 3, 4)}
        configuration = {"width": width, "stem_filters": width, **stages}
        network = build("resnet", configuration, input, classification(classes), (0.0,) * 3, (255.0,) * 3)
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data.mul_(100)  # answers far from uniform: a wrong one is noticed
        size = sum(p.numel() for p in network.parameters())
        name = f"{index:05d}-e001"
        members.append(Member(name, index, 1, "resnet", configuration, input, classification(classes), {}, size, 0.0))
        files.write_bytes(folder / "members" / name / "weights.safetensors", weights_bytes(network))
    return members


def weights_path(folder: Path, member: Member) -> Path:
    """Return the file of a member's weights."""
    return folder / "members" / member.id / "weights.safetensors"


def make_bundle(
    folder: Path, members: Sequence[Member], device: Device, backend: str, batch: int, lanes: int
) -> Bundle:
    """Return a bundle of `members` on `device`, divided between `lanes` workers."""
    ids = tuple(member.id for member in members)
    ensemble = Ensemble(f"of-{len(ids)}", ids, (1 / len(ids),) * len(ids), "hand", {}, {}, {})
    places = tuple(Placement(name, device.name, batch, index % lanes) for index, name in enumerate(ids))
    allocation = Allocation("kit", ensemble.name, (device,), places)
    return Bundle(ensemble, allocation, tuple(members), members[0].input, members[0].task, backend, folder)


def random_images(count: int, input: Input = SMALL) -> np.ndarray:
    """Return noise (count, height, width, channels)."""
    return np.random.default_rng(0).integers(0, 256, (count, *input.shape), np.uint8)


def write_noise(folder: Path, count: int, input: Input = SMALL) -> Path:
    """Write a data set of noise, where only the speed of training matters; return its folder."""
    from ripieno.data import write_dataset

    if not (folder / "dataset.json").exists():
        labels = np.arange(count) % len(CLASSES)
        # the last 200 images validate and test
        split = np.clip(np.arange(count) // len(CLASSES) - count // len(CLASSES) + 3, 0, 2).astype(np.uint8)
        mean = (127.5,) * input.shape[-1]
        write_dataset(
            Dataset("noise", random_images(count, input), labels, split, classification(CLASSES), mean, mean), folder
        )
    return folder


def sized_configurations(space: str, input: Input = SMALL) -> Mapping[str, Configuration]:
    """Return a small, a middling and a large network of a search space, by multiply-adds."""
    from ripieno.models.resnet_config import megaflops
    from ripieno.pipeline.trial_packing import representative_configurations
    from ripieno.pipeline.trial_packing_benchmark import sample_configurations
    from ripieno.search.built_in_spaces import find_space

    drawn = sample_configurations(find_space(space), 0)
    return representative_configurations(drawn, lambda one: megaflops(one, input))
