"""SVG diagrams of an allocation, bars of memory and time, in mid-tones legible on white and on black."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

from ripieno.allocation.explain import DeviceUse, Explanation
from ripieno.allocation.memory import format_bytes
from ripieno.reports.allocation_rows import AllocationRow, bar_lengths, memory_text, rows_by_worker, time_text
from ripieno.types import Allocation

INK, FREE = "#7a7f87", "#7a7f8733"
LEFT, WIDTH, BAR, GAP = 170, 520, 16, 5
"""Pixels: left edge, width and height of the bars, and the gap between them."""
WORKERS = 24
"""Maximum number of workers drawn without profiles."""


def allocation_svg(explanation: Explanation) -> str:
    """Return an `<svg>` element: memory used and left per device, and each placement's time fraction per worker.

    Time fractions are the model's; a thin bar below shows those measured by a benchmark, if any.
    """
    bars = rows_by_worker(explanation)
    bound = "" if explanation.bound is None else f", {explanation.gap_to_bound or 0:.1%} below the bound"
    measured = "" if explanation.measured is None else f", {explanation.measured:,.0f} measured"
    title = f"{explanation.name}: {explanation.throughput:,.0f} samples/s predicted{measured}{bound}"
    parts = [_text(0, 14, title, bold=True)]
    y = 26
    for use in explanation.devices:
        own = {worker: rows for (device, worker), rows in bars.items() if device == use.device}
        parts.append(_text(0, y + 12, f"{use.device}  {use.kind}", bold=True))
        y += BAR + 2
        parts += _memory(use, [r for rows in own.values() for r in rows], y)
        y += BAR + GAP
        for worker, rows in own.items():
            parts += _time(rows, y, f"time, worker {worker}" if worker or len(own) > 1 else "time")
            y += BAR + GAP + (4 if any(r.measured is not None for r in rows) else 0)
        y += GAP
    return _svg(title, [*parts, _text(0, y + 12, explanation.limits)], y + 24)


def workers_svg(allocation: Allocation) -> str:
    """Return an `<svg>` element without profiles: each placement's measured time fraction, else equal parts."""
    bars = rows_by_worker(allocation)
    parts, y = [], 2
    for (device, worker), rows in islice(bars.items(), WORKERS):
        parts += _time(rows, y, f"{device[:18]} worker {worker}")
        y += BAR + GAP
    if len(bars) > WORKERS:
        parts.append(_text(0, y + 12, f"and {len(bars) - WORKERS} more workers"))
        y += BAR + GAP
    return _svg("Members by worker", parts, y) if bars else ""


def _svg(title: str, parts: Iterable[str], height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 200} {height}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{INK}"><title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _memory(use: DeviceUse, rows: Sequence[AllocationRow], y: int) -> list[str]:
    total = max(1, use.used + use.left)
    segments = [(use.base / total, INK, "runtime: " + format_bytes(use.base), "")] if use.base else []
    segments += [
        ((r.bytes or 0) / total, r.colour, f"{r.member}: {format_bytes(r.bytes or 0)}", r.member) for r in rows
    ]
    return [_text(20, y + 12, "memory"), *_bar(segments, y, BAR), _text(LEFT + WIDTH + 8, y + 12, memory_text(use))]


def _time(rows: Sequence[AllocationRow], y: int, label: str) -> list[str]:
    segments = []
    for row, length in zip(rows, bar_lengths(rows), strict=True):
        tooltip = "" if row.time is None else f"{row.time:.1%} of the time, "
        words = f"{row.member}: {tooltip}batches of {row.batch}", f"{row.member} ×{row.batch}"
        segments.append((length, row.colour, *words))
    parts = [_text(20, y + 12, label), *_bar(segments, y, BAR), _text(LEFT + WIDTH + 8, y + 12, time_text(rows))]
    if any(None not in (r.share, r.measured) for r in rows):
        known = [(r.measured or 0.0, r.colour, f"{r.member}: {r.measured or 0:.1%} measured", "") for r in rows]
        parts += _bar(known, y + BAR + 1, 4)
    return parts


def _bar(segments: Sequence[tuple[float, str, str, str]], y: int, height: int) -> list[str]:
    """Draw segments (fraction, colour, tooltip, label if it fits) from the left."""
    parts = [f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{height}" fill="{FREE}"/>']
    x = float(LEFT)
    for share, colour, tooltip, text in segments:
        width = max(0.0, min(share * WIDTH, LEFT + WIDTH - x))
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}" stroke="{INK}" '
            f'stroke-width="0.5"><title>{escape(tooltip)}</title></rect>'
        )
        if text and width > 7 * len(text):
            parts.append(f'<text x="{x + 4:.1f}" y="{y + 12}" fill="#fff" pointer-events="none">{escape(text)}</text>')
        x += width
    return parts


def _text(x: int, y: int, text: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{weight}>{escape(text)}</text>'
