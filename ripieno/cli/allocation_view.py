"""An allocation explained in the terminal: tables, bars of text, and one sentence on what limits it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ripieno.allocation.explain import DeviceUse, Explanation
from ripieno.allocation.memory import format_bytes
from ripieno.cli.console import number, out, percent, table
from ripieno.profiles.timing import BUSY
from ripieno.types import Allocation

COLOURS = ("blue", "dark_orange", "green", "magenta", "yellow", "cyan", "medium_purple", "red")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LARGE = 0.25
"""A model error above this is said with its reasons."""
FULL = 0.9
"""Batches are full, lanes busy and profiles right from this share on."""
WIDTH = 40
"""Characters of a bar."""


def show(
    found: Explanation, errors: Sequence[float] = (), elsewhere: bool = False, others: float | None = None
) -> None:
    """Print who sits where, the devices as bars, what the pace is and what limits it."""
    letters = {m: LETTERS[i % len(LETTERS)] for i, m in enumerate(dict.fromkeys(s.member for s in found.seats))}
    out.print(seats(found, letters))
    out.print(devices(found, letters))
    out.print(found.limits)
    out.print(pace(found, elsewhere))
    out.print(error(errors, elsewhere, others, found))


def seats(found: Explanation, letters: dict[str, str]) -> Table:
    """Who sits where."""
    columns = "member", "device", "lane", "batch", "memory", "ms a batch", "images/s", "time predicted", "time measured"
    made = table(f"allocation {found.name}", "", *columns)
    for s in found.seats:
        made.add_row(
            letters[s.member],
            s.member,
            s.device,
            str(s.lane),
            str(s.batch_size),
            format_bytes(s.bytes),
            f"{1000 * s.seconds:.3g}",
            f"{s.rate:,.0f}",
            percent(s.share),
            percent(s.measured),
        )
    return made


def devices(found: Explanation, letters: dict[str, str]) -> Table:
    """Each device: a bar of its memory, and one of each lane's time, by the letters of who takes it."""
    made = table("devices (the letters are the members', # the runtime's own share)", "device", "kind", "", "", "")
    colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(letters)}
    for column in made.columns:
        column.justify = "left"
    for use in found.devices:
        inside = [s for s in found.seats if s.device == use.device]
        total = max(1, use.used + use.left)
        held = [("#", "dim", use.base / total)]
        held += [(letters[s.member], colours[s.member], s.bytes / total) for s in inside]
        words = f"{format_bytes(use.used)} of {format_bytes(total)}, {format_bytes(use.left)} left"
        made.add_row(use.device, use.kind, "memory", bar(held), words)
        made_time = _time_rows(found, use, letters, colours)
        for row in made_time:
            made.add_row("", "", *row)
    return made


def _time_rows(
    found: Explanation, use: DeviceUse, letters: dict[str, str], colours: dict[str, str]
) -> list[tuple[str, Text, str]]:
    inside = [s for s in found.seats if s.device == use.device]
    rows = []
    for lane in sorted({s.lane for s in inside}):
        own = [s for s in inside if s.lane == lane]
        words = f"{sum(s.share for s in own):.0%} predicted"
        if any(s.measured is not None for s in own):
            words += f", {sum(s.measured or 0.0 for s in own):.0%} measured"
        parts = [(letters[s.member], colours[s.member], s.share) for s in own]
        rows.append((f"time, lane {lane}", bar(parts), words))
    return rows or [("time", bar([]), "idle")]


def bar(parts: Sequence[tuple[str, str, float]], width: int = WIDTH) -> Text:
    """Shares (letter, colour, 0..1) as a bar `width` long; what is left over is dots."""
    text, done, total = Text(), 0, 0.0
    for letter, colour, share in parts:
        total += share
        end = min(width, round(total * width))
        text.append(letter * (end - done), style=colour)
        done = max(done, end)
    return text.append("·" * (width - done), style="dim")


def pace(found: Explanation, elsewhere: bool = False) -> str:
    """One line: images per second predicted and measured, and how far the plan is from the bound."""
    parts = [f"{found.throughput:,.0f} images/s predicted"]
    if elsewhere:
        parts[0] += ", not measured: these devices are not here"
    if found.measured:
        parts.append(f"{found.measured:,.0f} measured")
    if found.bound:
        parts.append(f"{percent(found.gap_to_bound)} below the bound of {found.bound:,.0f} that no plan can exceed")
    return ", ".join(parts)


def error(
    errors: Sequence[float],
    elsewhere: bool = False,
    others: float | None = None,
    found: Explanation | None = None,
) -> str:
    """One line: how far the model was off, and why, where it was off by much or other programs took CPU time.

    `others` is the share of the CPUs that other programs took, `found` the allocation that was benched last.
    """
    if not errors:
        here = "nothing was benched: --max-benches 20 measures it"
        return f"model error: not known, {'nothing can be benched on devices that are not here' if elsewhere else here}"
    sizes = [abs(e) for e in errors]
    where = " of earlier plans of this run, on the devices of that time" if elsewhere else ""
    middle, worst = statistics.median(sizes), max(sizes)
    said = f"model error: {middle:.1%} in the median of {len(sizes)} benches{where}, at most {worst:.1%}"
    why = reasons(others, found)
    if worst > LARGE and not why:
        why = ["no cause was recorded in the last bench: measure and allocate again on an idle machine"]
    return "; ".join([said, *(why if worst > LARGE or (others or 0.0) > BUSY else [])])


def reasons(others: float | None = None, found: Explanation | None = None) -> list[str]:
    """Return what kept the last bench from what the model predicts, each with its number."""
    why = []
    if (others or 0.0) > BUSY:
        why.append(f"other programs took {others:.0%} of the processors, so what was measured is low: repeat when idle")
    if found is None or found.measured is None:
        return why
    if (found.filled or 1.0) < FULL:
        why.append(f"batches were {found.filled:.0%} full in the last bench")
    if (found.busiest or 1.0) < FULL:
        why.append(f"the busiest lane computed {found.busiest:.0%} of the time: the last bench did not keep it busy")
    if (found.slower or 1.0) > 1 / FULL:
        why.append(
            f"a sample took {found.slower:.1f} times as long to compute as when its member was measured alone: "
            "`ripieno measure RUN --again` on an idle machine shows whether that was so then"
        )
    if (found.slower or 1.0) < FULL:
        why.append(
            f"a sample took {found.slower:.2f} times as long to compute as when its member was measured: the machine "
            "was busy then, so measure again: `ripieno measure RUN --again`"
        )
    return why


def latency(allocation: Allocation) -> str:
    """One line: the p99 at the rate asked for; empty when throughput was."""
    if allocation.rate is None:
        return ""
    how = "measured" if allocation.benches else "predicted"
    found = number(1000 * allocation.latency if allocation.latency else None, ".3g")
    return f"p99 {found} ms at {allocation.rate:g} images/s, {how}"
