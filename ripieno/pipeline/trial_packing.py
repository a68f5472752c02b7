"""How many trials share a machine, decided by a profile. Decides, starts nothing.

Theory of operation. An equal split gives each core (or each GPU) a trial of its own. Where trials share caches and
memory, fewer trials of more threads can train more images a second; on a GPU, several small trials can. How much is
measured with real networks of the search's space, a small, a middling and a large one (`profile`), all trials of a pack
at once. A search trains about as many images of each size, so that the seconds an image takes are averaged, not the
images a second. One look at each pack finds the equal split's `rival`; then the two are measured in turn, and the rival
is taken when its worst turn is better than the equal split's best, so that its advantage is more than the spread, and
is worth it. Else, and whenever something could not be measured, the equal split stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from ripieno.types import Configuration

GAIN = 1.05
"""How many times quicker than the equal split a pack must be, in the middle of its turns."""
TURNS = 3
"""How often the equal split and its rival are measured in turn."""
SECONDS = 1.0
"""How long a pack trains networks of one size at the first look."""
TURN_SECONDS = 0.5
"""The same in a turn; building a network takes about as long again."""
START_SECONDS = 5.0
"""What starting a pack's workers takes, and each size's first steps half of that."""
SHARE = 0.02
"""The most that a profile may take of the time given to a search."""
SIZES = ("small", "middling", "large")


@dataclass(frozen=True)
class PackingConfig:
    """`slots` trials at a time (on a CPU, or on each GPU), of `threads` threads, with `spare` cores each for data."""

    slots: int
    threads: int
    spare: int = 0

    def __str__(self) -> str:
        trials = f"{self.slots} trial{'s' * (self.slots > 1)} of {self.threads} thread{'s' * (self.threads > 1)}"
        return trials + (f" and {self.spare} for data" if self.spare else "")


@dataclass(frozen=True)
class PackingRate:
    """Images per second of all trials of a pack together, networks of one size."""

    pack: PackingConfig
    size: str
    images: float


def cpu_packs(cores: int) -> tuple[PackingConfig, ...]:
    """Packs of a machine with as many cores, none with more threads than cores; the equal split first."""
    threads = [1 << n for n in range(cores.bit_length()) if 1 << n <= cores]
    whole = [PackingConfig(cores // t, t) for t in threads]
    beside = [PackingConfig(cores // (t + 1), t, 1) for t in threads if t < cores]
    return tuple(whole + beside)


def gpu_packs(cores: int, gpus: int) -> tuple[PackingConfig, ...]:
    """Packs of each of `gpus` GPUs of a machine with as many cores; the equal split, one trial a GPU, first."""
    share = max(1, cores // gpus)
    return tuple(PackingConfig(n, 1, min(4, share // n - 1)) for n in (1, 2, 4, 8) if n == 1 or n <= share)


def is_worth_profiling(packs: Sequence[PackingConfig], seconds: float | None) -> bool:
    """Whether a profile of `packs` takes at most `SHARE` of a search of `seconds`; None: no time was given.

    Without a time the search is bounded by trials, and what it finds must not depend on what the machine measured.
    """
    if seconds is None or len(packs) < 2:
        return False
    looks = len(packs) * (START_SECONDS + len(SIZES) * (SECONDS + START_SECONDS / 2))
    turns = START_SECONDS + 2 * TURNS * len(SIZES) * 2 * TURN_SECONDS
    return looks + turns <= SHARE * seconds


def representative_configurations(
    configurations: Sequence[Configuration], cost: Callable[[Configuration], float]
) -> Mapping[str, Configuration]:
    """The configuration in the middle of the cheapest, the middling and the dearest third."""
    ranked = sorted(configurations, key=cost)
    return {size: ranked[(2 * n + 1) * len(ranked) // (2 * len(SIZES))] for n, size in enumerate(SIZES)}


def predicted(pack: PackingConfig, rates: Sequence[PackingRate]) -> float:
    """Images per second of a search on `pack`: the harmonic mean over the sizes measured; 0 when one did not train."""
    found = [rate.images for rate in rates if rate.pack == pack]
    if not found or len(found) < len({rate.size for rate in rates}) or not all(images > 0 for images in found):
        return 0.0
    return len(found) / sum(1 / images for images in found)


def best_alternative(packs: Sequence[PackingConfig], rates: Sequence[PackingRate]) -> PackingConfig | None:
    """The quickest of `packs` by `rates`; None when that is the first, the equal split, or nothing is known of that."""
    quickest = max(packs, key=lambda pack: predicted(pack, rates))
    return quickest if predicted(quickest, rates) > predicted(packs[0], rates) > 0 else None


def choose_packing(
    packs: Sequence[PackingConfig], rates: Sequence[PackingRate], turns: Sequence[Sequence[PackingRate]]
) -> PackingConfig:
    """The equal split's rival when it won in `turns` by more than their spread; else the first, the equal split."""
    equal, other = packs[0], best_alternative(packs, rates)
    if other is None or len(turns) < TURNS:
        return equal
    slow, quick = ([predicted(pack, turn) for turn in turns] for pack in (equal, other))
    won = min(quick) > max(slow) > 0 and median(q / s for q, s in zip(quick, slow, strict=True)) > GAIN
    return other if won else equal


def describe(
    pack: PackingConfig,
    packs: Sequence[PackingConfig],
    rates: Sequence[PackingRate],
    turns: Sequence[Sequence[PackingRate]],
) -> str:
    """The decision in one line."""
    equal, other = predicted(packs[0], rates), best_alternative(packs, rates)
    if not equal:
        return f"packing: {pack} at a time: the profile failed, see the logs"
    times = ", ".join(f"{one}: {predicted(one, rates) / equal:.2f}" for one in packs)
    if other is not None and turns:
        ratios = sorted(predicted(other, turn) / max(1e-9, predicted(packs[0], turn)) for turn in turns)
        times += f"; {other} in {len(turns)} turns: {ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"packing: {pack} at a time (images/s, the equal split 1: {times})"
