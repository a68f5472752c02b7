"""Front of costs and losses, and its hypervolume: the one number by which whole fronts are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CostLoss = tuple[float, float]
"""Cost and loss."""


def pareto_front(points: Iterable[CostLoss]) -> tuple[CostLoss, ...]:
    """Return the points that no other one dominates, each once, cheapest first and so with falling losses."""
    front: list[CostLoss] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return tuple(front)


def hypervolume(points: Iterable[CostLoss], reference: CostLoss) -> float:
    """Return the area of cost times loss that `points` dominate, up to the `reference`; more is better.

    Points that do not dominate the reference add nothing.
    """
    inside = pareto_front((cost, loss) for cost, loss in points if cost < reference[0] and loss < reference[1])
    above = (reference[1], *(loss for _, loss in inside))
    return sum((reference[0] - cost) * (upper - loss) for (cost, loss), upper in zip(inside, above, strict=False))


def reference_point(fronts: Iterable[Sequence[CostLoss]], margin: float = 1.1) -> CostLoss | None:
    """Return one reference for several fronts: `margin` times their highest cost and loss; None without any point."""
    points = [point for front in fronts for point in front]
    if not points:
        return None
    return margin * max(cost for cost, _ in points), margin * max(loss for _, loss in points)
