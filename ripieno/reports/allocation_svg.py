"""SVG diagram of an allocation, bars of memory and time per device, in mid-tones legible on white and on black."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ripieno.allocation.explain import DeviceUse, Explanation, PlacementReport
from ripieno.allocation.memory import format_bytes

COLOURS = ("#3d85c6", "#e07b39", "#6aa84f", "#a64d79", "#bf9000", "#45818e", "#8e7cc3", "#cc4125")
"""Colours of the members in order; repeated when exhausted."""
INK, FREE = "#7a7f87", "#7a7f8733"
LEFT, WIDTH, BAR, GAP = 170, 520, 16, 5
"""Pixels: left edge, width and height of the bars, and the gap between them."""


def allocation_svg(explanation: Explanation) -> str:
    """Return an `<svg>` element: memory used and left per device, and each placement's time fraction per worker.

    Time fractions are the model's; a thin bar below shows those measured by a benchmark, if any.
    """
    members = list(dict.fromkeys(s.member for s in explanation.placements))
    colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(members)}
    parts: list[str] = []
    y = 26
    for use in explanation.devices:
        placements = [s for s in explanation.placements if s.device == use.device]
        parts.append(_text(0, y + 12, f"{use.device}  {use.kind}", bold=True))
        y += BAR + 2
        parts += _memory(use, placements, colours, y)
        y += BAR + GAP
        workers = sorted({s.lane for s in placements})
        for worker in workers:
            inside = [s for s in placements if s.lane == worker]
            parts += _time(inside, colours, y, f"time, worker {worker}" if worker or len(workers) > 1 else "time")
            y += BAR + GAP + (4 if any(s.measured is not None for s in inside) else 0)
        y += GAP
    bound = "" if explanation.bound is None else f", {explanation.gap_to_bound or 0:.1%} below the bound"
    measured = "" if explanation.measured is None else f", {explanation.measured:,.0f} measured"
    title = f"{explanation.name}: {explanation.throughput:,.0f} samples/s predicted{measured}{bound}"
    parts.insert(0, _text(0, 14, title, bold=True))
    parts.append(_text(0, y + 12, explanation.limits))
    height = y + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 200} {height}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{INK}"><title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _memory(use: DeviceUse, placements: Sequence[PlacementReport], colours: dict[str, str], y: int) -> list[str]:
    total = max(1, use.used + use.left)
    segments = [(use.base / total, INK, "runtime: " + format_bytes(use.base), "")] if use.base else []
    segments += [
        (s.bytes / total, colours[s.member], f"{s.member}: {format_bytes(s.bytes)}", s.member) for s in placements
    ]
    words = f"{format_bytes(use.used)} of {format_bytes(total)}, {format_bytes(use.left)} left"
    return [_text(20, y + 12, "memory"), *_bar(segments, y, BAR), _text(LEFT + WIDTH + 8, y + 12, words)]


def _time(placements: Sequence[PlacementReport], colours: dict[str, str], y: int, label: str) -> list[str]:
    segments = [
        (s.share, colours[s.member], f"{s.member}: {s.share:.1%} of the time, batches of {s.batch_size}",
         f"{s.member} ×{s.batch_size}")
        for s in placements
    ]  # fmt: skip
    words = f"{sum(s.share for s in placements):.0%} predicted"
    parts = [_text(20, y + 12, label), *_bar(segments, y, BAR)]
    if any(s.measured is not None for s in placements):
        known = [
            (s.measured or 0.0, colours[s.member], f"{s.member}: {s.measured or 0:.1%} measured", "")
            for s in placements
        ]
        parts += _bar(known, y + BAR + 1, 4)
        words += f", {sum(s.measured or 0.0 for s in placements):.0%} measured"
    return [*parts, _text(LEFT + WIDTH + 8, y + 12, words)]


def _bar(segments: Sequence[tuple[float, str, str, str]], y: int, height: int) -> list[str]:
    """Draw segments (fraction, colour, tooltip, label if it fits) from the left."""
    parts = [f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{height}" fill="{FREE}"/>']
    x = float(LEFT)
    for share, colour, tooltip, text in segments:
        width = max(0.0, min(share * WIDTH, LEFT + WIDTH - x))
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}" stroke="#fff" '
            f'stroke-width="0.5"><title>{escape(tooltip)}</title></rect>'
        )
        if text and width > 7 * len(text):
            parts.append(f'<text x="{x + 4:.1f}" y="{y + 12}" fill="#fff" pointer-events="none">{escape(text)}</text>')
        x += width
    return parts


def _text(x: int, y: int, text: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{weight}>{escape(text)}</text>'
