"""Views of an allocation in the terminal: tables, text bars and one sentence on the throughput bottleneck."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from ripieno.allocation.explain import Explanation
from ripieno.allocation.memory import format_bytes
from ripieno.cli.console import number, out, percent, table
from ripieno.profiles.timing import BUSY
from ripieno.reports.allocation_rows import bar_lengths, memory_text, rows_by_worker, time_text
from ripieno.types import Allocation

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
LARGE = 0.25
"""A model error above this is printed with its causes."""
FULL = 0.9
"""From this share on, batches count as full, workers as busy and profiles as correct."""
WIDTH = 40
"""Characters of a bar."""


def show(explanation: Explanation, allocation: Allocation, errors: Sequence[float], offline: bool = False) -> None:
    """Print the placements, a bar per device, the throughput and its bottleneck, and the latency at a rate."""
    members = dict.fromkeys(s.member for s in explanation.placements)
    letters = {m: LETTERS[i % len(LETTERS)] for i, m in enumerate(members)}
    out.print(placements(explanation, letters))
    out.print(devices(explanation, letters))
    out.print(explanation.limits)
    out.print(throughput(explanation, offline))
    out.print(error(errors, offline, allocation.others, explanation))
    if allocation.rate is not None:
        out.print(latency(allocation))


def placements(explanation: Explanation, letters: dict[str, str]) -> Table:
    """Return the table of placements, a row each."""
    times = "ms/batch", "samples/s", "time predicted", "time measured"
    columns = "member", "device", "worker", "batch", "memory", *times
    view = table(f"allocation {explanation.name}", "", *columns)
    for s in explanation.placements:
        view.add_row(
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
    return view


def devices(explanation: Explanation, letters: dict[str, str]) -> Table:
    """Return the table of devices: a bar of memory and a bar of time per worker, drawn in the members' letters."""
    view = table("devices (letters stand for members, # for the runtime)", "device", "kind", "", "", "")
    for column in view.columns:
        column.justify = "left"
    bars = rows_by_worker(explanation)
    for use in explanation.devices:
        workers = {worker: rows for (device, worker), rows in bars.items() if device == use.device}
        total = max(1, use.used + use.left)
        parts = [("#", "dim", use.base / total)]
        parts += [(letters[r.member], r.colour, (r.bytes or 0) / total) for rows in workers.values() for r in rows]
        view.add_row(use.device, use.kind, "memory", bar(parts), memory_text(use))
        for worker, rows in workers.items():
            lengths = zip(rows, bar_lengths(rows), strict=True)
            parts = [(letters[r.member], r.colour, length) for r, length in lengths]
            view.add_row("", "", f"time, worker {worker}", bar(parts), time_text(rows))
        if not workers:
            view.add_row("", "", "time", bar([]), "idle")
    return view


def bar(parts: Sequence[tuple[str, str, float]], width: int = WIDTH) -> Text:
    """Return shares (letter, colour, 0..1) as a bar of `width` characters; dots fill the rest."""
    text, done, total = Text(), 0, 0.0
    for letter, colour, share in parts:
        total += share
        end = min(width, round(total * width))
        text.append(letter * (end - done), style=colour)
        done = max(done, end)
    return text.append("·" * (width - done), style="dim")


def throughput(explanation: Explanation, offline: bool = False) -> str:
    """Return one line: images per second predicted and measured, and the gap to the bound."""
    parts = [f"{explanation.throughput:,.0f} samples/s predicted"]
    if offline:
        parts[0] += ", not measured: this machine does not have these devices"
    if explanation.measured:
        parts.append(f"{explanation.measured:,.0f} measured")
    if explanation.bound:
        gap = percent(explanation.gap_to_bound)
        parts.append(f"{gap} below the bound of {explanation.bound:,.0f} that no plan can exceed")
    return ", ".join(parts)


def error(
    errors: Sequence[float], offline: bool = False, others: float | None = None, explanation: Explanation | None = None
) -> str:
    """Return one line: the model error, and its causes if it is large or other processes took CPU time (`others`)."""
    if not errors:
        reason = "this machine does not have the devices" if offline else "no benchmark was run, pass --max-benches 20"
        return f"model error: unknown, {reason}"
    sizes = [abs(e) for e in errors]
    where = " of earlier plans of this run on the devices of that time" if offline else ""
    median, worst = statistics.median(sizes), max(sizes)
    summary = f"model error: median {median:.1%}, maximum {worst:.1%} over {len(sizes)} benchmarks{where}"
    causes = reasons(others, explanation)
    if worst > LARGE and not causes:
        causes = ["the last benchmark shows no cause: measure and allocate again on an idle machine"]
    return "; ".join([summary, *(causes if worst > LARGE or (others or 0.0) > BUSY else [])])


def reasons(others: float | None = None, explanation: Explanation | None = None) -> list[str]:
    """Return the causes of a gap between the last benchmark and the model, each with its number."""
    causes = []
    if (others or 0.0) > BUSY:
        causes.append(
            f"other processes used {others:.0%} of the CPUs, so the measured throughput is too low: "
            "repeat on an idle machine"
        )
    if explanation is None or explanation.measured is None:
        return causes
    if (explanation.filled or 1.0) < FULL:
        causes.append(f"batches were {explanation.filled:.0%} full in the last benchmark")
    if (explanation.busiest or 1.0) < FULL:
        causes.append(
            f"the busiest worker computed {explanation.busiest:.0%} of the time in the last benchmark, which did not "
            "keep it busy"
        )
    if (explanation.slower or 1.0) > 1 / FULL:
        causes.append(
            f"a sample took {explanation.slower:.1f} times as long to compute as in the member's profile: "
            "run `ripieno measure RUN --again` on an idle machine to check the profile"
        )
    if (explanation.slower or 1.0) < FULL:
        causes.append(
            f"a sample took {explanation.slower:.2f} times as long to compute as in the member's profile: the machine "
            "was busy during profiling, run `ripieno measure RUN --again`"
        )
    return causes


def latency(allocation: Allocation) -> str:
    """Return one line: the p99 latency at the requested rate."""
    source = "measured" if allocation.benches else "predicted"
    value = number(1000 * allocation.latency if allocation.latency else None, ".3g")
    return f"p99 {value} ms at {allocation.rate:g} samples/s, {source}"
