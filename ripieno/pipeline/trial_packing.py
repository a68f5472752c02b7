"""Choice of the number of trials that share a machine, from a profile. It decides only and starts nothing.

Theory of operation. An equal split gives each core (or each GPU) its own trial. Where trials share caches and memory,
fewer trials with more threads can train more images per second; on a GPU, several small trials can. The gain is
measured with all trials of a pack at once, on a small, a middling and a large network of the search's space
(`profile`). A search trains about as many images of each size, so seconds per image are averaged, not images per
second. One measurement of each pack finds the equal split's rival (`best_alternative`). Then the two are measured in
turn. The rival is chosen when its worst turn is better than the equal split's best (its advantage exceeds the spread)
and its median advantage exceeds `GAIN`. Otherwise, and when any measurement is missing or failed, the equal split
stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ripieno.types import Configuration

GAIN = 1.05
"""Speed relative to the equal split that a rival must exceed, in the median of its turns."""
TURNS = 3
"""Number of turns of the equal split and its rival."""
SECONDS = 1.0
"""Seconds that a pack trains networks of one size in the first measurement."""
TURN_SECONDS = 0.5
"""The same in a turn; building a network takes about the same time again."""
START_SECONDS = 5.0
"""Seconds to start a pack's workers; the first steps of each size take half of that."""
SHARE = 0.02
"""Largest share of a search's time that a profile may take."""
SIZES = ("small", "middling", "large")


@dataclass(frozen=True)
class PackingConfig:
    """A pack: `slots` concurrent trials (on a CPU, or on each GPU) of `threads` threads and `spare` cores for data."""

    slots: int
    threads: int
    spare: int = 0

    def __str__(self) -> str:
        trials = f"{self.slots} trial{'s' * (self.slots > 1)} of {self.threads} thread{'s' * (self.threads > 1)}"
        return trials + (f" and {self.spare} for data" if self.spare else "")


@dataclass(frozen=True)
class PackingRate:
    """Images per second of all trials of a pack together, with networks of one size."""

    pack: PackingConfig
    size: str
    images: float


def cpu_packs(cores: int) -> tuple[PackingConfig, ...]:
    """Return the packs of a machine with `cores` cores, none with more threads than cores; the equal split first."""
    threads = [1 << n for n in range(cores.bit_length()) if 1 << n <= cores]
    whole = [PackingConfig(cores // t, t) for t in threads]
    spared = [PackingConfig(cores // (t + 1), t, 1) for t in threads if t < cores]
    return tuple(whole + spared)


def gpu_packs(cores: int, gpus: int) -> tuple[PackingConfig, ...]:
    """Return the packs of each of `gpus` GPUs of a machine with `cores` cores; the equal split, one trial, first."""
    share = max(1, cores // gpus)
    return tuple(PackingConfig(n, 1, min(4, share // n - 1)) for n in (1, 2, 4, 8) if n == 1 or n <= share)


def is_worth_profiling(packs: Sequence[PackingConfig], seconds: float | None) -> bool:
    """Return whether a profile of `packs` takes at most `SHARE` of a search of `seconds`.

    Returns False when `seconds` is None. The search is then bounded by trials, and its result must not depend on
    measurements.
    """
    if seconds is None or len(packs) < 2:
        return False
    first = len(packs) * (START_SECONDS + len(SIZES) * (SECONDS + START_SECONDS / 2))
    turns = START_SECONDS + 2 * TURNS * len(SIZES) * 2 * TURN_SECONDS
    return first + turns <= SHARE * seconds


def representative_configurations(
    configurations: Sequence[Configuration], cost: Callable[[Configuration], float]
) -> Mapping[str, Configuration]:
    """Return the configuration in the middle of the cheapest, the middle and the most expensive third, by size."""
    ranked = sorted(configurations, key=cost)
    return {size: ranked[(2 * n + 1) * len(ranked) // (2 * len(SIZES))] for n, size in enumerate(SIZES)}


def predicted(pack: PackingConfig, rates: Sequence[PackingRate]) -> float:
    """Predict images per second of a search with `pack`: the harmonic mean over sizes; 0 when a size did not train."""
    measured = [rate.images for rate in rates if rate.pack == pack]
    if not measured or len(measured) < len({rate.size for rate in rates}) or not all(images > 0 for images in measured):
        return 0.0
    return len(measured) / sum(1 / images for images in measured)


def best_alternative(packs: Sequence[PackingConfig], rates: Sequence[PackingRate]) -> PackingConfig | None:
    """Return the fastest of `packs` by `rates`; None when it is the first, the equal split, or that has no rate."""
    fastest = max(packs, key=lambda pack: predicted(pack, rates))
    return fastest if predicted(fastest, rates) > predicted(packs[0], rates) > 0 else None


def choose_packing(
    packs: Sequence[PackingConfig], rates: Sequence[PackingRate], turns: Sequence[Sequence[PackingRate]]
) -> PackingConfig:
    """Return the rival if it is faster in `turns` by more than their spread and `GAIN`, else the equal split."""
    equal, rival = packs[0], best_alternative(packs, rates)
    if rival is None or len(turns) < TURNS:
        return equal
    slow, fast = ([predicted(pack, turn) for turn in turns] for pack in (equal, rival))
    won = min(fast) > max(slow) > 0 and median(f / s for f, s in zip(fast, slow, strict=True)) > GAIN
    return rival if won else equal


def describe(
    pack: PackingConfig,
    packs: Sequence[PackingConfig],
    rates: Sequence[PackingRate],
    turns: Sequence[Sequence[PackingRate]],
) -> str:
    """Describe the decision in one line."""
    equal, rival = predicted(packs[0], rates), best_alternative(packs, rates)
    if not equal:
        return f"packing: {pack} at a time: the profile failed, see the logs"
    ratios = ", ".join(f"{one}: {predicted(one, rates) / equal:.2f}" for one in packs)
    if rival is not None and turns:
        by_turn = sorted(predicted(rival, turn) / max(1e-9, predicted(packs[0], turn)) for turn in turns)
        ratios += f"; {rival} in {len(turns)} turns: {by_turn[0]:.2f} to {by_turn[-1]:.2f}"
    return f"packing: {pack} at a time (samples/s relative to the equal split: {ratios})"
