"""Optuna's dashboard opens a run's journal as it is."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import synthetic
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from synthetic import LABELS, member_of

from ripieno.cluster import InlinePool
from ripieno.library import Library
from ripieno.search import Settings, run_search
from ripieno.search.journal import Journal
from ripieno.types import Failure, FrontEnsemble, Job, JobResult, LiveFront


def keep(run: Path, job: Job) -> JobResult:
    if job.trial == 5:
        return JobResult(job, failure=Failure("diverged", "the loss is not a number"))
    Library(run).add(member_of(job), np.full((3, 2), 0.5), LABELS)
    return JobResult(job, member_of(job))


@contextmanager
def dashboard(journal: Path) -> Iterator[str]:
    """Start the dashboard of `journal` as a user does; yield its address."""
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs the extra `dashboard`: pip install 'ripieno[dashboard]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, str(journal), "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


def ask(url: str, patience: float = 60.0) -> Any:
    """Return the JSON at `url`; retry until the server replies."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + patience
    while True:
        try:
            with opener.open(url, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_the_dashboard_draws_the_hypervolume_over_time(tmp_path: Path) -> None:
    plots = pytest.importorskip("optuna_dashboard._custom_plot_data", reason="needs the extra `dashboard`")
    path, before = tmp_path / "journal.log", None
    for start in (0, 4):  # two starts of a search
        journal = Journal(path, synthetic.SPACE, "random", 0)
        for number in range(start, start + 4):
            ensemble = FrontEnsemble(1.0, 1 / (1 + number), (f"m{number}",))
            front = LiveFront("members", (ensemble,), (11.0, 1.0), 0.1 * number, 10 + number, float(number))
            journal.append_front(front, before)
            before = front
        journal.end({})
        journal.sync()
        study = optuna.load_study(study_name="ripieno", storage=JournalStorage(JournalFileBackend(str(path))))
        (drawn,) = plots.get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id)).values()
        (line,) = json.loads(drawn)["data"]
        assert line["x"] == list(range(start + 4))
        assert line["y"] == pytest.approx([0.1 * number for number in range(start + 4)])
    assert path.read_text().count("plot_data") < 6


def test_the_dashboard_shows_our_trials_and_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    settings = Settings(synthetic.SPACE, trials=12, epochs=9)
    run_search(Library(tmp_path), settings, InlinePool(partial(keep, tmp_path)))
    journal = Library(tmp_path).journal_path
    before = journal.read_bytes()
    with dashboard(journal) as url:
        (study,) = ask(f"{url}/api/studies")["study_summaries"]
        assert (study["study_name"], study["directions"]) == ("ripieno", ["minimize"])
        trials = ask(f"{url}/api/studies/{study['study_id']}")["trials"]
    assert journal.read_bytes() == before
    held: dict[int, dict[int, float]] = {}
    for member in Library(tmp_path).members():
        held.setdefault(member.trial, {})[member.epoch] = member.losses["valid_cross_entropy"]
    assert [t["number"] for t in trials] == list(range(12))
    for trial in trials:
        rungs = {point["step"]: point["value"] for point in trial["intermediate_values"]}
        assert rungs == pytest.approx(held.get(trial["number"], {}))
        assert {p["name"] for p in trial["params"]} == set(synthetic.SPACE.ranges)
    assert {t["state"] for t in trials} == {"Complete", "Pruned", "Fail"}
