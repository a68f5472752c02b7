"""Networks of a space, measured before a search begins: from them, costs of its other networks are predicted.

A dozen networks with random weights, spread over the sizes of the space, are exported and measured alone, as members
are later. The run keeps the models that are fitted to them, so that a resumed search decides the same.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ripieno import files
from ripieno.backends.export import export_onnx
from ripieno.errors import RipienoError
from ripieno.library import Library
from ripieno.library.cost_table import MEASURED, own_cost
from ripieno.models.build import build, built_in_family
from ripieno.models.configuration_costs import configuration_costs
from ripieno.models.family_config import hyperparameter_names, member_family, network_megavalues
from ripieno.pipeline.runs import ProgressFunction, no_progress
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.profiles import local_devices, profile
from ripieno.profiles.cost_model import LEAST, CostModel, fit_cost_model
from ripieno.search import Space
from ripieno.train.checkpoint import weights_bytes
from ripieno.types import Configuration, Dataset, Device, Input, Member, Profile, Task

SAMPLES = 12
"""Networks that are measured."""
DRAWN = 96
"""Configurations drawn from a space, among which they are spread."""
SHARE = 0.05
"""Share of a search's time after which no other of them is begun."""
SECONDS = 1.0
"""Seconds for which a network is timed, about."""
WINDOW = 0.05
"""Seconds for which each batch size is timed at least."""
BATCH_SIZES = (1, 8, 32)
"""Batch sizes at which it is timed: the best of larger ones is hardly faster on a CPU."""
TINY = 1e-9
"""Smallest cost of which a logarithm is taken."""
RECORD = "cost-models.json"
"""File of the run that keeps the models."""


@dataclass(frozen=True)
class CostRecord:
    """Content of `RUN/cost-models.json`."""

    device: str
    """kind of device"""
    models: Mapping[str, CostModel]
    """by kind of cost; empty where too few networks were measured"""
    idle: bool = True
    """False when other processes kept the machine busy while a network was measured"""


def cost_features(family: str, configuration: Configuration, input: Input, task: Task) -> dict[str, float]:
    """Return features of a network from which a measured cost is predicted; most are logarithms.

    They are its closed forms, as far as its family has them, and its hyperparameters: words as indicators.
    """
    counts = configuration_costs(family, configuration, input, task)
    numbers = {kind: counts.get(kind, 0.0) for kind in ("parameters", "flops")}
    numbers["values"] = network_megavalues(family, configuration, input)
    names = hyperparameter_names(family) if built_in_family(family) else configuration.keys()
    features: dict[str, float] = {}
    for name, value in sorted(configuration.items()):
        if name not in names:
            continue
        if isinstance(value, str | bool):
            features[f"{name}={value}"] = 1.0
        else:
            numbers[f"configuration {name}"] = float(value)
    return features | {f"log {name}": math.log(number) for name, number in numbers.items() if number > 0}


def find_cost_models(
    library: Library,
    space: Space,
    dataset: Dataset,
    seed: int,
    seconds: float | None,
    trials: int | None,
    progress: ProgressFunction = no_progress,
    energy: bool = False,
) -> CostRecord:
    """Return the models of costs on the CPU that the run keeps, or fit and keep them.

    They are fitted to members of the run with profiles for this kind of device, if there are `SAMPLES`, else also to
    networks that are measured now: for `SHARE` of the `seconds` of a search, and no more than it has `trials`. Joules
    are among the costs with `energy` only.
    """
    path = library.path / RECORD
    if path.exists():
        record = files.read_json(path, CostRecord)
        if not energy or "joules" in record.models:
            return record
    device = local_devices("cpu")[0]  # where `select` counts seconds
    measured = [
        (member, found)
        for member, found in profiled_members(library, space.family, device.kind)
        if not energy or found.joules is not None
    ]
    if len(measured) < SAMPLES:
        until = math.inf if seconds is None else time.monotonic() + SHARE * seconds
        count = SAMPLES if trials is None else min(SAMPLES, max(LEAST, trials))
        configurations = spread_configurations(space, dataset, seed, count)
        measured += measure_networks(space.family, configurations, dataset, device, seed, until, progress, energy)
    features = [cost_features(space.family, one.configuration, one.input, one.task) for one, _ in measured]
    models: dict[str, CostModel] = {}
    for kind in [kind for kind in MEASURED if energy or kind != "joules"]:
        costs = [own_cost(library, *one, kind) for one in measured]
        if (model := fit_cost_model(features, [max(cost or 0.0, TINY) for cost in costs])) is not None:
            models[kind] = model
    record = CostRecord(device.kind, models, all(found.idle for _, found in measured))
    files.write_json(path, record)
    return record


def profiled_members(library: Library, family: str, device: str) -> list[tuple[Member, Profile]]:
    """Return the members with profiles for a kind of device whose networks are of `family`."""
    profiles = library.profiles(device)
    return [
        (member, profiles[member.id])
        for member in library.members()
        if member.id in profiles and not member.backbone and _is_of(member, family)
    ]


def _is_of(member: Member, family: str) -> bool:
    try:
        return bool(member.configuration) and member.family == member_family(family, member.configuration)
    except RipienoError:  # a configuration of another family
        return False


def spread_configurations(space: Space, dataset: Dataset, seed: int, count: int) -> list[Configuration]:
    """Return `count` configurations of `space` that are spread over its costs: the cheapest, the dearest, then between.

    Any first few of them are spread, too.
    """

    def cost(configuration: Configuration) -> float:
        costs = configuration_costs(space.family, configuration, dataset.input, dataset.task)
        return costs.get("flops", 0.0)

    ranked = sorted(sample_configurations(space, seed, DRAWN), key=cost)
    return [ranked[place] for place in spread_places(len(ranked), count)]


def spread_places(length: int, count: int) -> list[int]:
    """Return `count` places of `length`, at even distances, in an order in which any first few are spread."""
    count = min(count, length)
    places = [round(i * (length - 1) / max(1, count - 1)) for i in range(count)]
    ordered = [places[0], places[-1]][: len(places)]
    rest = places[1:-1]
    while rest:  # the one that is farthest from those before it
        farthest = max(rest, key=lambda place: min(abs(place - other) for other in ordered))
        rest.remove(farthest)
        ordered.append(farthest)
    return ordered


def measure_networks(
    family: str,
    configurations: Sequence[Configuration],
    dataset: Dataset,
    device: Device,
    seed: int = 0,
    until: float = math.inf,
    progress: ProgressFunction = no_progress,
    energy: bool = False,
) -> list[tuple[Member, Profile]]:
    """Measure networks of `configurations` with random weights; none begins after `until`, of the monotonic clock.

    A network that cannot be built, exported or measured is left out: its trial would report that.
    """
    found: list[tuple[Member, Profile]] = []
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder:
        for done, configuration in enumerate(configurations):
            if time.monotonic() > until:
                break
            progress(f"measuring sample networks on {device.kind}", done, len(configurations))
            try:
                found.append(_measure(family, configuration, dataset, device, seed, Path(folder), energy))
            except RipienoError:
                continue
        progress(f"measuring sample networks on {device.kind}", len(configurations), len(configurations))
    return found


def _measure(
    family: str, configuration: Configuration, dataset: Dataset, device: Device, seed: int, folder: Path, energy: bool
) -> tuple[Member, Profile]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(family, configuration, dataset.input, dataset.task, dataset.mean, dataset.std, (family,))
    member = Member(
        id="sample",
        trial=-1,
        epoch=0,
        family=member_family(family, configuration),
        configuration=configuration,
        input=dataset.input,
        task=dataset.task,
        losses={},
        parameters=sum(p.numel() for p in network.parameters()),
        seconds=0.0,
        created=0.0,
    )
    weights, model = folder / "weights.safetensors", folder / "model.onnx"
    files.write_bytes(weights, weights_bytes(network))
    export_onnx(member, weights, model, (family,))
    found = profile(model, member, device, batch_sizes=BATCH_SIZES, window=WINDOW, max_seconds=SECONDS, energy=energy)
    return member, found
