"""Tables and JSON of the engine's benchmarks."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"


def machine() -> str:
    """Describe this machine."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def record(name: str, settings: Mapping[str, object], rows: Sequence[Mapping[str, object]], note: str = "") -> None:
    """Print `rows` as a table and write `benchmarks/results/NAME.{json,txt}`."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    pad = [[f"{text:>{width}}" for text, width in zip(line, widths, strict=True)] for line in [columns, *cells]]
    lines = ["  ".join(line) for line in pad]
    described = ", ".join(f"{key} {value}" for key, value in settings.items())
    table = "\n".join([f"{name} on {machine()}; {described}", *lines, *([note] if note else [])])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.txt").write_text(table + "\n")
    # absolute paths are shortened to their names
    command = " ".join(Path(word).name if Path(word).is_absolute() else word for word in sys.argv)
    result = {"machine": machine(), "command": command, **settings, "rows": list(rows), "note": note}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2, default=str) + "\n")
    print(table)


def _cell(value: object) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else (f"{value:,.0f}" if isinstance(value, float) else str(value))
    )
