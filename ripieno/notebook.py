"""HTML views of ensembles, fronts, allocations and libraries in notebooks: small tables and SVG, without scripts.

Text takes the notebook's own colour and marks are mid-tones, so that both light and dark themes are readable. The types
know nothing of HTML: `register` attaches the views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ripieno.library import Library
from ripieno.library.cost_table import read_cost_table
from ripieno.reports.allocation_svg import workers_svg
from ripieno.reports.figure_style import BLUE, ORANGE, plain
from ripieno.tasks.display import format_metric, loss_title, metric_names, score_of
from ripieno.tasks.metrics import METRICS, format_expected, metric_key
from ripieno.types import Allocation, Ensemble, Front, Member, combiner_name, ranking_loss, training_unit

ROWS = 12
"""Rows of a table at most."""
WIDTH = 420
"""Pixels: width of the plot of a front."""
UNITS = {
    "seconds": "s for 2,000 samples",
    "latency": "s for one sample",
    "memory": "bytes",
    "joules": "J for 2,000 samples",
    "flops": "operations",
    "bytes": "of the ONNX files",
}


def ensemble_view(ensemble: Ensemble) -> str:
    """Render an ensemble: its costs and budgets, scores, members and weights."""
    expected = (
        [f"expected {METRICS[metric_key(ensemble.loss)].title} {format_expected(ensemble)}"]
        if ensemble.expected_loss is not None
        else []
    )
    figures = [_figure(key, value) for key, value in ensemble.losses.items()]
    bounds = {kind: f" of {bound:.4g}" for kind, bound in ensemble.budget.items()}
    costs = [f"{kind} {value:.4g}{bounds.get(kind, '')}" for kind, value in ensemble.cost.items()]
    pairs = list(zip(ensemble.members, ensemble.weights, strict=True))
    rows = [(member, _bar(weight), f"{weight:.3g}") for member, weight in pairs]
    combined = combiner_name(ensemble.combiner)
    title = f"{ensemble.name}: {len(pairs)} members by {ensemble.method}, combined by their {combined}"
    return _card(title, [*costs, *expected, *figures], _table(("member", "", "weight"), rows))


def front_view(front: Front) -> str:
    """Render a Pareto front: the step plot of loss by cost, and the ensembles."""
    rows, points = [], []
    ranking, score, *_ = metric_names(e.losses for e in front.ensembles)
    for e in front.ensembles:
        cost, loss = e.cost[front.cost], ranking_loss(e.losses)
        figures = (format_metric(score, e.losses.get(f"{s}_{score}")) for s in ("valid", "test"))
        expected = format_expected(e)
        rows.append((e.name, f"{cost:.4g}", str(len(e.members)), expected, _number(loss), *figures))
        if loss is not None:
            points.append((cost, loss))
    title = f"{len(front.ensembles)} ensembles by {front.method}, best for each budget"
    titles = (METRICS[ranking].title, METRICS[score].title, f"test {METRICS[score].title}")
    columns = ("name", front.cost, "members", "expected loss", *titles)
    return _card(title, [f"cost: {UNITS.get(front.cost, front.cost)}"], _stairs(points), _table(columns, rows))


def allocation_view(allocation: Allocation) -> str:
    """Render an allocation: a bar per worker, divided among its members, and the throughput."""
    speeds = (("measured", allocation.throughput), ("by the model", allocation.predicted), ("bound", allocation.bound))
    facts = [f"{value:,.0f} samples/s {name}" for name, value in speeds if value]
    if allocation.rate is not None and allocation.latency is not None:
        facts.append(f"99 of 100 within {1000 * allocation.latency:.3g} ms at {allocation.rate:g} samples/s")
    devices = ", ".join(f"{d.name} ({d.kind})" for d in allocation.devices)
    title = f"{allocation.name}: {len(allocation.placements)} placements of {allocation.ensemble} on {devices}"
    return _card(title, facts, workers_svg(allocation))


def library_view(library: Any) -> str:
    """Render a library: its number of members, the best members with their costs, and its ensembles."""
    members = sorted(library.members(), key=lambda m: (m.loss, m.id))
    device = library.usual_device()
    costs = read_cost_table(library, ("seconds",), device, members).alone("seconds")
    trials = len({m.trial for m in members if m.trial >= 0})
    task = members[0].task if members else None
    score = METRICS[score_of(task)]
    ranking = "loss" if task is None else loss_title(task)

    def row(m: Member) -> tuple[str, ...]:
        loss, shown = _number(m.loss), format_metric(score_of(task), m.losses.get(f"valid_{score_of(task)}"))
        cost = _number(costs.get(m.id), ".4g")
        return m.id, str(m.epoch), loss, shown, f"{m.parameters:,}", cost

    rows = [row(m) for m in members[: ROWS + 1]]
    best = (
        _table(("member", training_unit(members), ranking, score.title, "parameters", "seconds"), rows, len(members))
        if rows
        else ""
    )
    facts = [f"{len(members)} members of {trials} trials"] + ([f"measured on {device}"] if device else [])
    chosen = []
    for e in library.ensembles():
        cost = " ".join(f"{k} {v:.4g}" for k, v in e.cost.items())
        loss = _number(ranking_loss(e.losses))
        test = format_metric(score_of(task), e.losses.get(f"test_{score_of(task)}"))
        chosen.append((e.name, cost, str(len(e.members)), format_expected(e), loss, test))
    columns = ("ensemble", "cost", "members", "expected loss", ranking, f"test {score.title}")
    more = _table(columns, chosen) if chosen else ""
    return _card(str(library.path), facts, best, more)


VIEWS: Mapping[type, Callable[[Any], str]] = {
    Ensemble: ensemble_view,
    Front: front_view,
    Allocation: allocation_view,
    Library: library_view,
}
"""View of each type."""


def register() -> None:
    """Give each type of `VIEWS` the method `_repr_html_` that notebooks call; calling it again changes nothing."""
    for kind, view in VIEWS.items():
        kind._repr_html_ = view  # type: ignore[attr-defined]


def _stairs(points: Sequence[tuple[float, float]]) -> str:
    """Draw loss by cost as steps: costs on a logarithmic axis where all are above 0."""
    if len(points) < 2:
        return ""
    costs, losses = [c for c, _ in points], [v for _, v in points]
    scale: Callable[[float], float] = math.log if min(costs) > 0 else float
    low, high, least, most = scale(min(costs)), scale(max(costs)), min(losses), max(losses)
    left, top, height = 8, 8, 120

    def at(cost: float, loss: float) -> tuple[float, float]:
        x = left + (scale(cost) - low) / ((high - low) or 1) * (WIDTH - 2 * left)
        return x, top + (most - loss) / ((most - least) or 1) * (height - 2 * top)

    points_xy = [at(*point) for point in points]
    path = f"M{points_xy[0][0]:.1f} {points_xy[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in points_xy[1:])
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{ORANGE}"><title>{c:.4g}: {v:.4f}</title></circle>'
        for (x, y), (c, v) in zip(points_xy, points, strict=True)
    )
    words = (
        f'<text x="{left}" y="{height + 14}">{min(costs):.3g}</text>'
        f'<text x="{WIDTH - left}" y="{height + 14}" text-anchor="end">{max(costs):.3g}</text>'
        f'<text x="{WIDTH / 2}" y="{height + 14}" text-anchor="middle">cost; loss {most:.4f} to {least:.4f}</text>'
    )
    steps = f'<path d="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 20}" role="img" '
        f'aria-label="Validation loss by cost" style="max-width:{WIDTH}px;width:100%;display:block;margin:.4em 0" '
        f'font-family="inherit" font-size="12" fill="currentColor">{steps}{dots}{words}</svg>'
    )


def _card(title: str, facts: Iterable[str], *parts: str) -> str:
    text = " · ".join(escape(plain(f)) for f in facts if f)
    line = f'<div style="opacity:.75">{text}</div>' if text else ""
    return f'<div style="overflow-x:auto"><div><b>{escape(plain(title))}</b></div>{line}{"".join(parts)}</div>'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], count: int | None = None) -> str:
    """Render a table of at most `ROWS` of `count` rows; the first column is text, the others are numbers."""
    edge = "border-bottom:1px solid rgba(128,128,128,.35);padding:.15em .7em .15em 0"

    def cell(tag: str, text: str, number: int) -> str:
        body = text if isinstance(text, _Markup) else escape(plain(text))
        return f'<{tag} style="text-align:{"right" if number else "left"};{edge}">{body}</{tag}>'

    head = "".join(cell("th", name, i) for i, name in enumerate(columns))
    body = "".join(f"<tr>{''.join(cell('td', text, i) for i, text in enumerate(row))}</tr>" for row in rows[:ROWS])
    rest = (count or len(rows)) - ROWS
    more = f'<div style="opacity:.75">and {rest} more</div>' if rest > 0 else ""
    return (
        f'<table style="border-collapse:collapse;background:none"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{more}"
    )


class _Markup(str):
    """Text that ripieno generated as HTML."""


def _bar(share: float) -> str:
    width = 60 * min(max(share, 0.0), 1.0)
    return _Markup(
        f'<svg width="60" height="8" aria-hidden="true"><rect width="{width:.1f}" height="8" fill="{BLUE}"/></svg>'
    )


def _figure(key: str, value: float) -> str:
    """Return a loss or score with its name: `valid accuracy 91.20 %`."""
    split, _, name = key.partition("_")
    return f"{split} {METRICS[name].title} {METRICS[name].format(value)}"


def _number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)
