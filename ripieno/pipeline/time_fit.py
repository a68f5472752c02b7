"""Spaces and epochs fitted to the time of a search without a GPU: what is too slow for it is left out.

Of networks with a choice of backbones or of kinds of network, the slow ones are left out by an estimate. Residual
networks and those of cells differ in their sizes: a middling one is trained for a second, which scales the estimates
to this machine. Then the ends of the ranges that cost most are cut until nearly every configuration can train an epoch
in a small share of the time. The number of epochs stays: near its end a search starts no job that would not end. The
run keeps the fitted space, so a resumed search draws the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from statistics import fmean, median

from ripieno.library import Library
from ripieno.models.cell_config import FAMILY as CELL
from ripieno.models.cell_config import SLOT_NAMES
from ripieno.models.smp_config import is_smp
from ripieno.models.timm_config import FAMILY, is_timm
from ripieno.models.timm_network import timm_megaflops
from ripieno.pipeline.timm_space import resolutions
from ripieno.pipeline.trial_packing_benchmark import sample_configurations
from ripieno.search.space import Categorical, Integer, Range, Space, backbone_names
from ripieno.train import TrainingConfig
from ripieno.train.speed import measure_throughput
from ripieno.types import Configuration, Dataset, Value

RATE = 8000.0
"""Millions of multiply-adds of a backbone that a core does in a second, about."""
SHARE = 0.15
"""Largest share of a search's time for the features by all its backbones at all its resolutions."""
TRIAL_SHARE = 1 / 3
"""Largest share of a search's time for a trial of the maximum number of epochs."""
PASSES = 3
"""What an epoch of a whole network takes, forward and backward, in passes forward."""
LEAST_EPOCHS = 4
"""Smallest maximum number of epochs: the first fits a head, and the next one or two are no better than it."""
DRAWN = 32
"""Configurations of which the median cost of a network is taken."""
SIZED = ("resnet", CELL)
"""Families whose sizes are fitted."""
EPOCH_SHARE = 1 / 20
"""Largest share of a search's time for an epoch of a sized network: a short search still trains ten members."""
SLOW_SHARE = 0.1
"""Largest share of the configurations of a fitted space that may be too slow."""
CUT = 1 / 4
"""Share of a range of numbers that a cut takes away."""
CLOSE = 8.0
"""Factor by which a machine may be slower than estimated; where even then all fits, none is timed."""
TIMING_SECONDS = 1.0
"""Seconds for which the middling network is trained, after its first batches."""
TIMING_SHARE = 0.02
"""Largest share of a search's time for this timing, which takes about three times `TIMING_SECONDS` in all."""
_MIDDLE: Configuration = {"architecture": "Unet", "decoder_width": 0.5}
"""Values of networks of smp by which encoders are compared."""

Filter = Callable[[Configuration], bool]
"""True for a configuration that the bounds of a search allow."""


def fit_to_time(
    space: Space,
    epochs: int,
    dataset: Dataset,
    cost: Callable[[Configuration], float],
    seconds: float,
    *,
    pretrained: bool,
    epochs_given: bool,
    pace: Callable[[], float] = lambda: 1.0,
    allow: Filter | None = None,
) -> tuple[Space, int, list[str]]:
    """Return `space` and the maximum number of `epochs`, fitted to the `seconds` of all cores, and remarks on it.

    `cost` estimates the milliseconds of an epoch of a configuration by one core. Backbones and epochs are fitted where
    networks of timm are `pretrained`, epochs only unless the user has given them. Sizes are fitted for the families of
    `SIZED`; there `pace` measures the factor by which this machine is slower than `cost` says. Sizes and networks that
    `allow` refuses, by the bounds of the search, do not count; backbones all do.
    """
    if space.family in SIZED:
        slowest = max(map(cost, sample_configurations(space, 0, DRAWN, allow))) * (dataset.fold_count + 1) / 1000
        if CLOSE * slowest <= EPOCH_SHARE * seconds:
            return space, epochs, []
        space, remark = fit_sizes(space, cost, (dataset.fold_count + 1) * pace(), seconds, allow)
        return space, epochs, [remark] if remark else []
    space, *remarks = fit_networks(space, cost, dataset.fold_count + 1, epochs, seconds, allow)
    pretrained = pretrained and is_timm(space.family)
    if pretrained:
        space, remark = fit_backbones(space, dataset, seconds)
        remarks.append(remark)
    if pretrained and not epochs_given:
        epochs, remark = fit_epochs(space, dataset, seconds, epochs)
        remarks.append(remark)
    return space, epochs, [remark for remark in remarks if remark]


def fit_networks(
    space: Space,
    cost: Callable[[Configuration], float],
    models: int,
    epochs: int,
    seconds: float,
    allow: Filter | None = None,
) -> tuple[Space, str]:
    """Return `space` without the values that are too slow for a search, and a remark, empty without any.

    They are values of `network`, of the encoder of networks of smp, or of `stem_stride`. A trial trains `models`
    networks. In the median, a trial of `epochs` takes at most `TRIAL_SHARE` of the `seconds` of all cores. The quickest
    value stays.
    """
    names = ("network", "backbone", "stem_stride") if not is_timm(space.family) else ()
    name, choice = next(((n, c) for n in names if isinstance(c := space.ranges.get(n), Categorical)), ("", None))
    if not isinstance(choice, Categorical):
        return space, ""
    drawn: list[Configuration] = sample_configurations(space, 0, DRAWN, allow)
    if is_smp(space.family):  # a count takes a network's construction, so one an encoder
        drawn = [{**drawn[0], **{n: value for n, value in _MIDDLE.items() if n in space.ranges}}]
    took: dict[Value, float] = {
        value: epochs * models * median(cost({**configuration, name: value}) for configuration in drawn) / 1000
        for value in choice.choices
    }
    kept = [n for n, t in took.items() if t <= TRIAL_SHARE * seconds] or [min(took, key=lambda value: took[value])]
    if len(kept) == len(took):
        return space, ""
    ranges = {**space.ranges, name: Categorical(tuple(kept))}
    left_out = [f"{name} {v}" if name == "stem_stride" else str(v) for v in took if v not in kept]
    return dataclasses.replace(space, ranges=ranges), _too_slow(left_out, seconds)


def measure_pace(
    library: Library,
    space: Space,
    cost: Callable[[Configuration], float],
    seconds: float,
    samples: int,
    allow: Filter | None = None,
) -> float:
    """Return the factor by which a core of this machine trains slower than `cost` says; 1 where none is measured.

    The network in the middle of `space` by cost trains for `TIMING_SECONDS`, unless that is more than `TIMING_SHARE` of
    the `seconds` of the search. `samples` is the number of training samples.
    """
    if TIMING_SHARE * seconds < 3 * TIMING_SECONDS:
        return 1.0
    drawn = sorted(sample_configurations(space, 0, DRAWN, allow), key=cost)
    middle = drawn[len(drawn) // 2]
    config = TrainingConfig(run=library.path.resolve(), dataset=library.dataset_path.resolve(), family=space.family)
    try:
        rate = measure_throughput(config, middle, TIMING_SECONDS, batches=2).rate
    except Exception:  # a network that cannot train is reported by its trial
        return 1.0
    return 1000 * samples / rate / cost(middle)


def fit_sizes(
    space: Space,
    cost: Callable[[Configuration], float],
    factor: float,
    seconds: float,
    allow: Filter | None = None,
) -> tuple[Space, str]:
    """Return `space` without the ends of its ranges that make networks too slow, and a remark, empty without any.

    An epoch takes `factor` times the milliseconds that `cost` estimates. A network is too slow if that is more than
    `EPOCH_SHARE` of the `seconds` of all cores. Ranges are cut until at most `SLOW_SHARE` of the configurations that
    `allow` accepts are too slow, or nothing makes them faster. Each time the cut is made that saves most time for the
    share of its range that it takes away. The result depends on the arguments only.
    """
    bound = 1000 * EPOCH_SHARE * seconds / factor
    drawn = sample_configurations(space, 0, DRAWN, allow)
    ranges = dict(space.ranges)
    while sum(cost(configuration) > bound for configuration in drawn) > SLOW_SHARE * len(drawn):
        mean = fmean(map(cost, drawn))
        best = max(
            (
                ((mean - fmean(cost(within(c, name, cut)) for c in drawn)) / lost, name, cut)
                for name, choice in ranges.items()
                if name not in SLOT_NAMES  # inputs and operators of cells stay
                for cut, lost in cuts(choice)
            ),
            key=lambda saved: saved[0],
            default=None,
        )
        if best is None or best[0] <= 0.01 * mean:
            break
        _, cut_name, narrower = best
        ranges[cut_name] = narrower
        drawn = [within(configuration, cut_name, narrower) for configuration in drawn]
    cut = [f"{name} {describe_values(choice)}" for name, choice in ranges.items() if choice != space.ranges[name]]
    if not cut:
        return space, ""
    remark = (
        f"networks that are too slow for {seconds / 60:.0f} minutes of a core are not drawn: the search has "
        f"{', '.join(cut)}; give more --hours for the whole space"
    )
    return dataclasses.replace(space, ranges=ranges), remark


def cuts(choice: Range) -> list[tuple[Range, float]]:
    """Return the ranges that a cut makes of `choice`, each with the share of its values that are lost."""
    if isinstance(choice, Categorical) and len(choice.choices) > 1:
        values = choice.choices
        return [(Categorical(tuple(v for v in values if v != out)), 1 / len(values)) for out in values]
    if not isinstance(choice, Integer) or choice.high - choice.low < choice.step:
        return []
    low, high = choice.low, choice.high
    cut = low * (high / low) ** (1 - CUT) if choice.log else high - CUT * (high - low)
    steps = min(int((cut - low) / choice.step), (high - low) // choice.step - 1)
    top = low + steps * choice.step
    return [(dataclasses.replace(choice, high=top), 1 - (top - low + choice.step) / (high - low + choice.step))]


def within(configuration: Configuration, name: str, choice: Range) -> Configuration:
    """Return `configuration` with the value of `name` that is in `choice`; a value outside becomes its end."""
    value = configuration[name]
    if isinstance(choice, Categorical):
        return configuration if value in choice.choices else {**configuration, name: choice.choices[0]}
    assert isinstance(choice, Integer)
    return {**configuration, name: min(choice.high, int(value))}


def describe_values(choice: Range) -> str:
    """Return the values of a range: `6 to 11`, or `v1, v2`."""
    if isinstance(choice, Categorical):
        return " or ".join(map(str, choice.choices))
    return f"{choice.low}" if choice.low == choice.high else f"{choice.low} to {choice.high}"


def fit_backbones(space: Space, dataset: Dataset, seconds: float) -> tuple[Space, str]:
    """Return `space` without the backbones and resolutions that are too slow for a search, and a remark on them.

    The features by all backbones at all resolutions take at most `SHARE` of the `seconds` of all cores: what saves
    most is left out first, and one backbone at one resolution stays. The remark is empty where all stay.
    """
    names, sides = list(backbone_names(space)), sorted(set(resolutions(space)))
    if not sides:  # one backbone that takes one resolution only
        return space, ""
    # a count of operations takes a network's construction, so one a backbone, scaled by the area
    largest = {name: feature_seconds({"backbone": name, "resolution": sides[-1]}, dataset) for name in names}
    cost = {(name, side): took * (side / sides[-1]) ** 2 for name, took in largest.items() for side in sides}
    left_out: list[str] = []
    while sum(cost.values()) > SHARE * seconds and len(cost) > 1:
        several = [v for values in (names, sides) if len(values) > 1 for v in values]
        slowest = max(several, key=lambda v: sum(took for pair, took in cost.items() if v in pair))
        cost = {pair: took for pair, took in cost.items() if slowest not in pair}
        names, sides = [n for n in names if n != slowest], [s for s in sides if s != slowest]
        left_out.append(f"{slowest} pixels" if isinstance(slowest, int) else slowest)
    if not left_out:
        return space, ""
    ranges = {**space.ranges, "resolution": Categorical(tuple(sides))}
    if "backbone" in ranges:
        ranges["backbone"] = Categorical(tuple(names))
    return dataclasses.replace(space, ranges=ranges), _too_slow(left_out, seconds)


def fit_epochs(space: Space, dataset: Dataset, seconds: float, epochs: int) -> tuple[int, str]:
    """Return the maximum number of epochs of a search, `epochs` or fewer, and a remark on it, empty where it stays.

    A trial of as many, of the whole network, takes at most `TRIAL_SHARE` of the `seconds` of all cores, in the median
    over the backbones of `space` at its largest resolution. Longer trials would be cut off by the end of the search.
    With folds, a trial trains one network more than there are folds.
    """
    side = max(resolutions(space), default=0)
    at = {"resolution": side} if side else {}
    passes = [timm_megaflops(FAMILY, {"backbone": name, **at}) / RATE for name in backbone_names(space)]
    epoch = PASSES * median(passes) * len(dataset.rows("train")) * (dataset.fold_count + 1)
    fitted = max(LEAST_EPOCHS, int(TRIAL_SHARE * seconds / epoch))
    if fitted >= epochs:
        return epochs, ""
    return fitted, f"trials have at most {fitted} epochs, which fit in the time; give more --hours, or --epochs"


def feature_seconds(configuration: Configuration, dataset: Dataset) -> float:
    """Estimate the seconds that a core takes to compute the features of the train and validation splits."""
    samples = len(dataset.inputs) - len(dataset.rows("test"))
    return samples * timm_megaflops(FAMILY, configuration) / RATE


def _too_slow(left_out: list[str], seconds: float) -> str:
    return f"left out as too slow for {seconds / 60:.0f} minutes of a core: {', '.join(left_out)}; give more --hours"
