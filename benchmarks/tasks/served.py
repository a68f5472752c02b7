"""Ensembles of finished searches as they are served: one ONNX graph in process, and a server by a real client.

    python benchmarks/tasks/served.py RUN ... [--name NAME] [--rows FILE ...] [--predictions FILE ...] [--calls 300]

RUN is the folder of a search whose data have a test split. Its ensemble of four times the median member's cost is
allocated to the processors and exported to one ONNX file. The table has the losses of the test split by the library and
by the ONNX file, samples per second and the 99th percentile of milliseconds for calls with one sample and with 64: of
the ONNX file in ONNX Runtime, one call after another, and of `ripieno serve` by one client over HTTP. For a table, FILE
of `--rows` (one for each RUN, in order) is its CSV, whose raw values are sent. FILE of `--predictions` is what
`autogluon_predictions.py` wrote, with the seconds of its own calls. To be run alone. Writes
benchmarks/results/tasks-served-NAME.{json,txt}.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).parents[1] / "selection"))
import numpy as np
import onnxruntime
import pandas
from ensembles import at_median_budgets
from libraries import one_thread, versions
from record import record

import ripieno
from ripieno.data.dataset import open_dataset
from ripieno.library import Library
from ripieno.server.client import Client
from ripieno.server.column_tensors import to_tensors
from ripieno.tasks.registry import kind_of
from ripieno.types import Ensemble, loss_key

BATCHES = (1, 64)
CHOSEN = "SMOBF 4 x"
WARM = 20
"""Calls before those that are timed."""


class Samples:
    """Test samples of a run, as an ONNX graph and as a client take them."""

    def __init__(self, run: Path, table: Path | None) -> None:
        data = open_dataset(run / "dataset")
        self.targets = np.asarray(data.targets[data.rows("test")])
        self._inputs = np.asarray(data.inputs[data.rows("test")])
        self._frame = None
        if table is not None:
            frame = pandas.read_csv(table)
            self._frame = frame[frame["split"] == "test"].reset_index(drop=True)

    def __len__(self) -> int:
        return len(self.targets)

    def sent(self, rows: slice) -> Any:
        """Return samples as a client takes them."""
        return self._inputs[rows] if self._frame is None else self._frame.iloc[rows]

    def tensors(self, rows: slice, declared: Mapping[str, str]) -> dict[str, Any]:
        """Return samples as inputs of a graph with inputs `declared`: names, and datatypes of the protocol."""
        if self._frame is None:
            return {next(iter(declared)): self._inputs[rows]}
        part = self._frame.iloc[rows]
        columns = {name: part[name].tolist() for name in declared}
        found = to_tensors(columns, declared, "the graph")
        return {
            name: np.array(values, object)[:, np.newaxis] if isinstance(values, list) else values
            for name, values in found.items()
        }


def timed(call: Callable[[slice], object], samples: int, size: int, calls: int) -> dict[str, float]:
    """Return samples per second and the 99th percentile of milliseconds of calls with `size` samples each."""
    seconds = []
    size = min(size, samples)
    for number in range(WARM + calls):
        start = number * size % (samples - size + 1)
        begun = time.perf_counter()
        call(slice(start, start + size))
        seconds.append(time.perf_counter() - begun)
    return rates(np.array(seconds[WARM:]), size)


def rates(seconds: Any, size: int) -> dict[str, float]:
    """Return samples per second and the 99th percentile of milliseconds of calls that took `seconds`."""
    return {"samples/s": size * len(seconds) / float(seconds.sum()), "p99 ms": 1e3 * float(np.quantile(seconds, 0.99))}


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Serve a bundle on a free port of this machine, and yield the address."""
    command = [sys.executable, "-m", "ripieno", "serve", str(bundle), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield found[0]
                return
        raise SystemExit("the server ended before it had an address")
    finally:
        process.terminate()
        process.wait()


def rows(run: Path, samples: Samples, peer: Path | None, calls: int) -> list[dict[str, Any]]:
    """Return a row for each system and size of a call."""
    library = Library(run)
    ensemble: Ensemble = at_median_budgets(library)[CHOSEN]
    task = library.members()[0].task
    key = loss_key(task, "test")
    shown = {"run": run.name, "members": len(ensemble.members), "loss": ensemble.losses[key]}
    found = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        ripieno.allocate(library, ensemble, devices="cpu", bundle=bundle)
        path = ripieno.export(bundle)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        output = session.get_outputs()[0].name
        with served(bundle) as address, Client(address) as client:
            declared = {str(t["name"]): str(t["datatype"]) for t in client.metadata()["inputs"]}

            def graph(part: slice) -> Any:
                return session.run([output], samples.tensors(part, declared))[0]

            whole = np.concatenate([graph(slice(i, i + 256)) for i in range(0, len(samples), 256)])
            scores = kind_of(task).losses(whole, samples.targets, task, "test", ensemble.thresholds)
            shown["loss of the ONNX file"] = scores[key]
            for size in BATCHES:
                for system, call in (
                    ("ONNX Runtime", graph),
                    ("server", lambda part: client.infer(samples.sent(part))),
                ):
                    found.append(shown | {"system": system, "batch": size} | timed(call, len(samples), size, calls))
    if peer is not None:
        with np.load(peer) as held:
            for size, name in zip(BATCHES, ("single", "batches"), strict=True):
                found.append({"run": run.name, "system": "AutoGluon", "batch": size} | rates(held[name], size))
    return found


def main() -> None:
    """Measure all runs, then write the table."""
    one_thread()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--name", default="series", help="last part of the name of the results")
    parser.add_argument("--rows", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--predictions", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    none = [None] * len(options.runs)
    found = []
    for run, table, peer in zip(options.runs, options.rows or none, options.predictions or none, strict=True):
        found += rows(run, Samples(run, table), peer, options.calls)
    record(f"tasks-served-{options.name}", {"calls": options.calls, **versions()}, found)


if __name__ == "__main__":
    main()
