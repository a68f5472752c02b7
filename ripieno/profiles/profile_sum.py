"""Profile of networks that run one after another in one worker, such as a backbone and its heads."""

from __future__ import annotations

from collections.abc import Sequence

from ripieno.types import BatchProfile, Profile


def sum_profiles(name: str, parts: Sequence[Profile]) -> Profile:
    """Return the profile `name` of all `parts` together, at the batch sizes at which each was measured.

    Seconds, bytes and joules are sums; the base memory, which a worker has once, is the largest. `parts` are of one
    kind of device and one backend.
    """
    sizes = sorted(set.intersection(*({point.batch_size for point in part.points} for part in parts)))
    joules = [part.joules for part in parts if part.joules is not None]
    return Profile(
        name,
        parts[0].device,
        parts[0].backend,
        tuple(_sum(size, [part.at(size) for part in parts]) for size in sizes),
        idle=all(part.idle for part in parts),
        base=max(part.base for part in parts),
        load=sum(part.load for part in parts),
        tried=tuple(sorted({size for part in parts for size in part.tried})),
        joules=sum(joules) if len(joules) == len(parts) else None,
    )


def _sum(size: int, points: Sequence[BatchProfile]) -> BatchProfile:
    seconds = sum(point.seconds for point in points)
    spread = sum(point.spread * point.seconds for point in points) / seconds
    return BatchProfile(size, seconds, spread, sum(point.bytes for point in points))
