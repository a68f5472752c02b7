"""An allocation as a picture: a bar of memory and a bar of time for each device, cut up by who sits there.

Plain SVG text, in mid-tones that read on white and on black alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ripieno.allocation.explain import DeviceUse, Explanation, PlacementReport
from ripieno.allocation.memory import format_bytes

COLOURS = ("#3d85c6", "#e07b39", "#6aa84f", "#a64d79", "#bf9000", "#45818e", "#8e7cc3", "#cc4125")
"""Of the members in their order, then again from the first."""
INK, FREE = "#7a7f87", "#7a7f8733"
LEFT, WIDTH, BAR, GAP = 170, 520, 16, 5
"""Pixels: where bars begin, how long they are, how high, and what lies between them."""


def allocation_svg(found: Explanation) -> str:
    """An `<svg>` element: memory used and left on each device, and the share of time of each placement on each lane.

    Shares of time are the model's; where a bench measured them too, a thin bar below shows these.
    """
    members = list(dict.fromkeys(s.member for s in found.seats))
    colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(members)}
    parts: list[str] = []
    y = 26
    for use in found.devices:
        seats = [s for s in found.seats if s.device == use.device]
        parts.append(_text(0, y + 12, f"{use.device}  {use.kind}", bold=True))
        y += BAR + 2
        parts += _memory(use, seats, colours, y)
        y += BAR + GAP
        for lane in sorted({s.lane for s in seats}):
            inside = [s for s in seats if s.lane == lane]
            parts += _time(
                inside, colours, y, f"time, lane {lane}" if lane or len({s.lane for s in seats}) > 1 else "time"
            )
            y += BAR + GAP + (4 if any(s.measured is not None for s in inside) else 0)
        y += GAP
    bound = "" if found.bound is None else f", {found.gap_to_bound or 0:.1%} below the bound"
    measured = "" if found.measured is None else f", {found.measured:,.0f} measured"
    title = f"{found.name}: {found.throughput:,.0f} samples/s predicted{measured}{bound}"
    parts.insert(0, _text(0, 14, title, bold=True))
    parts.append(_text(0, y + 12, found.limits))
    height = y + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 200} {height}" role="img" '
        f'font-family="sans-serif" font-size="12" fill="{INK}"><title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _memory(use: DeviceUse, seats: Sequence[PlacementReport], colours: dict[str, str], y: int) -> list[str]:
    total = max(1, use.used + use.left)
    segments = [(use.base / total, INK, "the runtime's own share: " + format_bytes(use.base), "")] if use.base else []
    segments += [(s.bytes / total, colours[s.member], f"{s.member}: {format_bytes(s.bytes)}", s.member) for s in seats]
    words = f"{format_bytes(use.used)} of {format_bytes(total)}, {format_bytes(use.left)} left"
    return [_text(20, y + 12, "memory"), *_bar(segments, y, BAR), _text(LEFT + WIDTH + 8, y + 12, words)]


def _time(seats: Sequence[PlacementReport], colours: dict[str, str], y: int, label: str) -> list[str]:
    segments = [
        (s.share, colours[s.member], f"{s.member}: {s.share:.1%} of the time, batches of {s.batch_size}",
         f"{s.member} ×{s.batch_size}")
        for s in seats
    ]  # fmt: skip
    words = f"{sum(s.share for s in seats):.0%} predicted"
    parts = [_text(20, y + 12, label), *_bar(segments, y, BAR)]
    if any(s.measured is not None for s in seats):
        known = [
            (s.measured or 0.0, colours[s.member], f"{s.member}: {s.measured or 0:.1%} measured", "") for s in seats
        ]
        parts += _bar(known, y + BAR + 1, 4)
        words += f", {sum(s.measured or 0.0 for s in seats):.0%} measured"
    return [*parts, _text(LEFT + WIDTH + 8, y + 12, words)]


def _bar(segments: Sequence[tuple[float, str, str, str]], y: int, height: int) -> list[str]:
    """Segments (share, colour, what the pointer is told, what is written when there is room) from the left."""
    parts = [f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{height}" fill="{FREE}"/>']
    x = float(LEFT)
    for share, colour, hint, text in segments:
        width = max(0.0, min(share * WIDTH, LEFT + WIDTH - x))
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}" stroke="#fff" '
            f'stroke-width="0.5"><title>{escape(hint)}</title></rect>'
        )
        if text and width > 7 * len(text):
            parts.append(f'<text x="{x + 4:.1f}" y="{y + 12}" fill="#fff" pointer-events="none">{escape(text)}</text>')
        x += width
    return parts


def _text(x: int, y: int, text: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{weight}>{escape(text)}</text>'
