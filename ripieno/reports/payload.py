"""The explorer's data for the page's script: plain values, short names, numbers rounded to the visible digits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ripieno.reports.explorer import Evaluation, Explorer, HardSample
from ripieno.reports.row_values import RowValues
from ripieno.reports.run_data import RunData
from ripieno.reports.series_lines import HEIGHT, WIDTH, SeriesLines
from ripieno.tasks.metrics import METRICS, format_expected, metric_key
from ripieno.tasks.registry import kind_of
from ripieno.types import Dataset, Member

Drawing = str | SeriesLines | RowValues
"""A sample on the page: the address of a picture, lines, or values by column."""
DOTS = 1500
"""Maximum number of members in the chart, the best."""


def payload(reading: RunData, explorer: Explorer, drawings: Mapping[int, Drawing]) -> dict[str, Any]:
    """Return the data for `explorer.js`; `drawings` of samples are by row of the split shown."""
    used = sorted({m for s in explorer.spots for m in s.ensemble.members})
    index = {m: i for i, m in enumerate(used)}
    by_id = {m.id: m for m in reading.members}
    drawn = [m for m in reading.members if m.id in reading.costs][:DOTS]
    rows = sorted(drawings)
    return {
        "unit": reading.unit,
        "kind": reading.kind,
        "metric": reading.metric,
        "score": reading.score,
        "percent": METRICS[reading.score].in_percent,
        "ranking": reading.ranking,
        "loss": reading.loss,
        "masks": explorer.masks is not None,
        "difference": kind_of(reading.task).diversity_title,
        "split": explorer.split,
        "classes": list(reading.classes()),
        "shown": list(explorer.shown),
        "rest": explorer.rest,
        "members": [_member(by_id[m], reading, explorer.faces.get(m)) for m in used],
        "dots": [[rounded(reading.costs[m.id]), rounded(m.loss)] for m in drawn],
        "pairs": [[index[a], index[b], rounded(share, 3)] for (a, b), share in explorer.disagreement.items()],
        "drawings": [_drawing(drawings[row]) for row in rows],
        "points": [
            {
                "names": list(s.names),
                "cost": rounded(s.ensemble.cost[reading.kind]),
                "members": [index[m] for m in s.ensemble.members],
                "weights": [rounded(w) for w in s.ensemble.weights],
                "expected": [f"expected {METRICS[metric_key(s.ensemble.loss)].title}", format_expected(s.ensemble)]
                if s.ensemble.expected_loss is not None
                else None,
                "figures": {name: rounded(value, 5) for name, value in s.ensemble.losses.items()},
                **({} if s.judged is None else _evaluation(s.judged)),
                "confused": [list(c) for c in s.confused],
                "doubted": [[c, rounded(share, 3)] for c, share in s.doubted],
                "hardest": [_sample(sample, rows) for sample in s.hardest],
                "disputed": [_sample(sample, rows) for sample in s.disputed],
            }
            for s in explorer.spots
        ],
    }


def places(explorer: Explorer, dataset: Dataset) -> dict[int, int]:
    """Return the row in the data set of each row of the split shown; empty if the samples are not the data set's."""
    rows = explorer.dataset_rows(dataset)
    return {} if rows is None else dict(zip(explorer.rows.tolist(), rows.tolist(), strict=True))


def wanted_rows(explorer: Explorer) -> list[list[int]]:
    """Return the rows of the split to draw, one list per point: ends and middle of the front first."""
    spots = explorer.spots
    order = sorted(range(len(spots)), key=lambda i: min(i, len(spots) - 1 - i, abs(i - len(spots) // 2)))
    return [[s.row for pair in zip_longest(spots[i].hardest, spots[i].disputed) for s in pair if s] for i in order]


def embedded(values: object) -> str:
    """Return `values` as JSON that is safe inside a script element: it cannot close the element."""
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def rounded(value: float, digits: int = 5) -> float:
    """Round `value` to `digits` significant digits."""
    return float(f"{value:.{digits}g}")


def _member(member: Member, reading: RunData, evaluation: Evaluation | None) -> dict[str, Any]:
    return {
        "id": member.id,
        "cost": rounded(reading.costs[member.id]) if member.id in reading.costs else None,
        "loss": rounded(member.loss),
        "score": rounded(member.losses.get(f"valid_{reading.score}", 0.0)),
        "parameters": member.parameters,
        "epoch": member.epoch,
        **({} if evaluation is None else _evaluation(evaluation)),
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "confusion": [list(row) for row in evaluation.confusion],
        "bins": [
            [b.count, *(rounded(value, 3) for value in (b.low, b.high, b.confidence, b.accuracy))]
            for b in evaluation.calibration.bins
        ],
        "error": rounded(evaluation.calibration.value, 3),
        "range": [rounded(evaluation.calibration.low, 3), rounded(evaluation.calibration.high, 3)],
        "temperature": rounded(evaluation.temperature, 3),
        "cooled": rounded(evaluation.cooled, 3),
    }


def _drawing(drawing: Drawing) -> str | dict[str, Any]:
    """Return the address of a picture, the values of a row, or the paths of a series in their view box."""
    if isinstance(drawing, str):
        return drawing
    if isinstance(drawing, tuple):
        return {"values": [list(pair) for pair in drawing]}
    return {"box": [WIDTH, HEIGHT], "lines": list(drawing.lines), "note": drawing.note}


def _sample(sample: HardSample, rows: Sequence[int]) -> dict[str, Any]:
    return {
        "row": sample.row,
        "truth": sample.truth,
        "answer": sample.answer,
        "p": rounded(sample.probability, 3),
        "votes": [list(v) for v in sample.votes],
        "drawing": rows.index(sample.row) if sample.row in rows else None,
    }
