"""The explorer's data as the page's script reads it: plain values, short names, numbers rounded to what can be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ripieno.reports.explorer import Evaluation, Explorer, HardSample
from ripieno.reports.run_data import RunData
from ripieno.types import Dataset, Member

DOTS = 1500
"""Members in the chart at most, the best."""


def payload(reading: RunData, explorer: Explorer, pictures: Mapping[int, str]) -> dict[str, Any]:
    """What `explorer.js` is handed; `pictures` by row of the split shown."""
    used = sorted({m for s in explorer.spots for m in s.ensemble.members})
    place = {m: i for i, m in enumerate(used)}
    by_id = {m.id: m for m in reading.members}
    drawn = [m for m in reading.members if m.id in reading.costs][:DOTS]
    addresses = sorted(pictures)
    return {
        "unit": reading.unit,
        "kind": reading.kind,
        "metric": reading.metric,
        "split": explorer.split,
        "classes": list(reading.classes()),
        "shown": list(explorer.shown),
        "rest": explorer.rest,
        "members": [_member(by_id[m], reading, explorer.faces.get(m)) for m in used],
        "dots": [[rounded(reading.costs[m.id]), rounded(m.losses["valid_cross_entropy"])] for m in drawn],
        "pairs": [[place[a], place[b], rounded(share, 3)] for (a, b), share in explorer.disagreement.items()],
        "pictures": [pictures[row] for row in addresses],
        "points": [
            {
                "names": list(s.names),
                "cost": rounded(s.ensemble.cost[reading.kind]),
                "members": [place[m] for m in s.ensemble.members],
                "weights": [rounded(w) for w in s.ensemble.weights],
                "figures": {name: rounded(value, 5) for name, value in s.ensemble.losses.items()},
                **_judged(s.judged),
                "confused": [list(c) for c in s.confused],
                "doubted": [[c, rounded(share, 3)] for c, share in s.doubted],
                "hardest": [_shot(shot, addresses) for shot in s.hardest],
                "disputed": [_shot(shot, addresses) for shot in s.disputed],
            }
            for s in explorer.spots
        ],
    }


def places(explorer: Explorer, dataset: Dataset) -> dict[int, int]:
    """Row in the data set of each row of the split shown; empty when the run's samples are not its data set's."""
    rows = dataset.rows(explorer.split)
    wanted = {s.row: s.truth for spot in explorer.spots for s in (*spot.hardest, *spot.disputed)}
    # predictions may have been brought for other samples than the data set's: then there are no pictures to show
    if any(row >= len(rows) or dataset.labels[rows[row]] != truth for row, truth in wanted.items()):
        return {}
    return {row: int(rows[row]) for row in wanted}


def wanted_rows(explorer: Explorer) -> list[list[int]]:
    """Rows of the split to have pictures of, a list a point: the ends of the front and its middle first."""
    spots = explorer.spots
    order = sorted(range(len(spots)), key=lambda i: min(i, len(spots) - 1 - i, abs(i - len(spots) // 2)))
    return [[s.row for pair in zip_long(spots[i].hardest, spots[i].disputed) for s in pair] for i in order]


def zip_long(first: Sequence[HardSample], second: Sequence[HardSample]) -> list[tuple[HardSample, ...]]:
    """Both in turn, as long as either lasts."""
    return [tuple(side[i] for side in (first, second) if i < len(side)) for i in range(max(len(first), len(second)))]


def embedded(values: object) -> str:
    """`values` as JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def rounded(value: float, digits: int = 5) -> float:
    """`value` to `digits` significant ones."""
    return float(f"{value:.{digits}g}")


def _member(member: Member, reading: RunData, judged: Evaluation | None) -> dict[str, Any]:
    return {
        "id": member.id,
        "cost": rounded(reading.costs[member.id]) if member.id in reading.costs else None,
        "loss": rounded(member.losses["valid_cross_entropy"]),
        "score": rounded(member.losses.get(f"valid_{reading.score}", 0.0)),
        "parameters": member.parameters,
        "epoch": member.epoch,
        **({} if judged is None else _judged(judged)),
    }


def _judged(judged: Evaluation) -> dict[str, Any]:
    return {
        "confusion": [list(row) for row in judged.confusion],
        "bins": [[b.count, rounded(b.confidence, 3), rounded(b.accuracy, 3)] for b in judged.bins],
        "error": rounded(judged.error, 3),
        "temperature": rounded(judged.temperature, 3),
        "cooled": rounded(judged.cooled, 3),
    }


def _shot(shot: HardSample, addresses: Sequence[int]) -> dict[str, Any]:
    picture = addresses.index(shot.row) if shot.row in addresses else None
    votes = [list(v) for v in shot.votes]
    return {
        "row": shot.row,
        "truth": shot.truth,
        "answer": shot.answer,
        "p": rounded(shot.probability, 3),
        "votes": votes,
        "picture": picture,
    }
