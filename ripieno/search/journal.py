"""Journal of a search: an Optuna study in one file of JSON lines, which all of Optuna's tools can read.

Theory of operation. A search is a list of events: a job is submitted, a job has finished. Event 41 is the study's user
attribute `event:000041`; the search's state is a fold over the events (:mod:`ripieno.search.driver`). The study's
trials carry the configurations, one line each, and, for Optuna's samplers and dashboard, the losses at rungs and the
final state; the fold needs only the configurations. Fronts of ensembles are attributes too, `front:000003`: the fold
does not read them. Lines are buffered until `sync`, which returns when they are on
disk: once per batch of decisions, before any of them is carried out. A killed driver or a full disk can leave an
incomplete last line: it is not read, and is cut off before more is written. Only one driver writes at a time (it holds
the run's lock), so Optuna's own file locks, which survive a kill, are not used.
"""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ripieno import files
from ripieno.errors import SearchError
from ripieno.search.constraints import DRAWS, Bounds, Constraint, draw_values, only_value
from ripieno.search.in_memory_study import InMemoryStudy, constraint_attributes, quiet
from ripieno.search.objectives import LOSS, SINGLE, find_objectives, vector
from ripieno.search.predictions import TrialPrediction
from ripieno.search.samplers import MakeSampler, bind_sampler, sample, trial_seed
from ripieno.search.space import Space, distributions
from ripieno.search.warm_start import COLD, WarmStart, values_key
from ripieno.types import Configuration, Failure, LiveFront

PLOT = "dashboard:plot_data:hypervolume:0"
"""Attribute of a plot that Optuna's dashboard draws, as its `save_plotly_graph_object` writes it."""
STUDY = "ripieno"
"""Name of the study."""
SAMPLED, DRAWN = 10, 100 * DRAWS
"""Proposals of the sampler, and random ones after these, until one meets the constraints."""
REDRAWN = "redrawn"
"""Attribute of a trial: the configurations that were drawn for it before and break a constraint."""
PREDICTION = "prediction"
"""Attribute of a trial: its number and what its sampler predicted of it, see `TrialPrediction`."""
PLACE = "portfolio"
"""Attribute of a trial: the place of its configuration, from 1, in the portfolio with which the search began."""


@dataclass(frozen=True)
class JobSubmitted:
    """Event: a job was submitted."""

    trial: int
    start: int
    stop: int
    cost: float
    """its virtual duration"""
    told: int
    """number of results reported before"""
    rank: int = 0
    """of a promoted trial at epoch `start`, from 1; 0: not known, as of new trials"""
    ranked: int = 0
    """number of results among which it has that rank"""


@dataclass(frozen=True)
class JobFinished:
    """Event: the job that trains `trial` to epoch `stop` ended, with a loss or with a failure.

    `seconds` are those of all its epochs, also of some that were trained in an earlier start.
    """

    trial: int
    stop: int
    loss: float | None
    seconds: float
    failure: Failure | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """numbers of the result besides the ranking loss, by name: see `JobResult`"""


Event = JobSubmitted | JobFinished
_EVENTS: dict[str, type[Event]] = {"issued": JobSubmitted, "arrived": JobFinished}
_NAMES = {kind: name for name, kind in _EVENTS.items()}


class Journal:
    """Study of a run at `path`, in memory if None; `sampler` is a name or a factory.

    A configuration that breaks `bounds` is drawn again; `constraints` are those of the results. Of several `objectives`
    Optuna's tools see the values. The first trials are the portfolio of `warm_start`, and samplers see its curves.
    Raises SearchError when the file is broken or cannot be written.
    """

    def __init__(
        self,
        path: Path | None,
        space: Space,
        sampler: str | MakeSampler,
        seed: int,
        bounds: Bounds | None = None,
        constraints: Sequence[Constraint] = (),
        objectives: Sequence[str] = (LOSS,),
        warm_start: WarmStart = COLD,
    ) -> None:
        self._space = space
        self._objectives = find_objectives(objectives)
        self._sampler = bind_sampler(sampler, {}) if isinstance(sampler, str) else sampler
        self._seed = seed
        try:
            self._log = _Log(path)
            self._storage = JournalStorage(self._log)
        except (ValueError, KeyError) as error:
            raise SearchError(f"{path} is broken ({error}): restore it, or use another folder") from error
        self._study = InMemoryStudy(distributions(space), constraints, self._objectives, warm_start.curves)
        self._bounds = bounds
        if bounds:
            self._study.allow = self._allows
        directions = [
            StudyDirection.MAXIMIZE if objective.maximize else StudyDirection.MINIMIZE for objective in self._objectives
        ]
        with quiet():
            study = optuna.create_study(
                storage=self._storage, study_name=STUDY, directions=directions, load_if_exists=True
            )
        self._id = self._storage.get_study_id_from_name(STUDY)
        if len(self._objectives) > 1 and study.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna warns that names are experimental
                study.set_metric_names([objective.name for objective in self._objectives])
        self._events = len(self.events())
        attributes = self._storage.get_study_user_attrs(self._id)
        fronts = [attributes[name] for name in sorted(attributes) if name.startswith("front:")]
        self._volumes = [(float(front["seconds"]), float(front["hypervolume"])) for front in fronts]
        self._plotted = len(self._volumes)
        trials = self._storage.get_all_trials(self._id, deepcopy=False)
        self._values = [t.params for t in trials]
        self.predictions = self._study.predictions
        """what samplers predicted of trials, by number"""
        for trial in trials:
            if PREDICTION in trial.user_attrs:
                fields = {name: value for name, value in trial.user_attrs[PREDICTION].items() if name != "trial"}
                self.predictions[trial.number] = TrialPrediction(**fields)
        self._ids = [t._trial_id for t in trials]
        self._reported = {(t.number, epoch) for t in trials for epoch in t.intermediate_values}
        self._ended = {t.number for t in trials if t.state.is_finished()}
        self._attributes = {t.number: dict(t.system_attrs) for t in trials}
        self.redrawn = sum(t.user_attrs.get(REDRAWN, 0) for t in trials)
        """configurations that broke a constraint and were drawn again"""
        self._portfolio = warm_start.portfolio
        self._tried = {values_key(v) for v in (*warm_start.portfolio, *(curve.values for curve in warm_start.curves))}
        self.has_portfolio = bool(warm_start.portfolio)
        """whether the first trials are of a portfolio"""
        self._places = {t.number: int(t.user_attrs[PLACE]) for t in trials if PLACE in t.user_attrs}
        self._place = max(self._places.values(), default=0)
        self._last: dict[int, list[float]] = {}  # values of the objectives at the last rung of a trial

    def events(self) -> list[Event]:
        """Return all events in their order."""
        attributes = self._storage.get_study_user_attrs(self._id)
        names = sorted((name for name in attributes if name.startswith("event:")), key=lambda name: (len(name), name))
        plain = [attributes[name] for name in names]
        return [msgspec.convert(fields, _EVENTS[fields["event"]]) for fields in plain]

    def append(self, event: Event) -> int:
        """Add an event, which `sync` writes; return its number."""
        plain = {"event": _NAMES[type(event)], **asdict(event)}
        if not plain.get("values"):  # as journals of searches by the loss alone have always been
            plain.pop("values", None)
        self._storage.set_study_user_attr(self._id, f"event:{self._events:06d}", plain)
        self._events += 1
        return self._events - 1

    def append_front(self, front: LiveFront, before: LiveFront | None) -> None:
        """Add a front, which `sync` writes, by its ensembles that the front `before` does not have.

        Optuna's tools show its hypervolume as the attribute of that name; the dashboard draws it over time.
        """
        known = set(before.ensembles) if before else set()
        fields = {name: getattr(front, name) for name in ("cost", "reference", "hypervolume", "members", "seconds")}
        new = [[e.cost, e.loss, list(e.members)] for e in front.ensembles if e not in known]
        self._storage.set_study_user_attr(self._id, f"front:{len(self._volumes):06d}", {**fields, "new": new})
        self._storage.set_study_user_attr(self._id, "hypervolume", front.hypervolume)
        self._volumes.append((front.seconds, front.hypervolume))
        if len(self._volumes) >= 2 * self._plotted:  # so that all plots together are as long as two
            self._plot()

    def _plot(self) -> None:
        """Write the plot of the hypervolume over time."""
        self._plotted = len(self._volumes)
        times, volumes = zip(*self._volumes, strict=True)
        line = {"type": "scatter", "mode": "lines+markers", "line": {"shape": "hv"}, "x": times, "y": volumes}
        axes = {"xaxis": {"title": {"text": "seconds of the search"}}, "yaxis": {"title": {"text": "hypervolume"}}}
        figure = {"data": [line], "layout": {"title": {"text": "Best ensembles: hypervolume"}, **axes}}
        self._storage.set_study_system_attr(self._id, PLOT, json.dumps(figure))

    def truncate(self, event: int | None) -> None:
        """Remove event number `event` and all later ones from the file, as if killed before; None: do nothing.

        It must be the last call on a journal: its memory keeps the events, and only a journal opened later lacks them.
        """
        if event is not None:
            self._log.cut(f'"event:{event:06d}"'.encode())

    def sync(self) -> None:
        """Write the added lines; return when they are on disk."""
        self._log.sync()

    def configuration(self, trial: int) -> Configuration:
        """Return the configuration of trial number `trial`; choose it now if it is the next new trial."""
        assert trial <= len(self._values), f"trial {trial} requested, {len(self._values)} is next"
        if trial == len(self._values):
            self._choose()
        values = self._values[trial]
        if trial == len(self._study):
            self._study.start(values)
        return {**{name: values[name] for name in self._space.ranges}, **self._space.fixed}

    def _choose(self) -> None:
        """Choose the values of the next trial; after a kill the journal holds all of them or none."""
        attributes: dict[str, Any] = {}
        if (values := self._next_of_portfolio()) is not None:
            attributes[PLACE] = self._places[len(self._values)] = self._place
        else:
            values, redrawn = self._draw()
            self.redrawn += redrawn
            if redrawn:
                attributes[REDRAWN] = redrawn
            if (prediction := self.predictions.get(len(self._values))) is not None:
                attributes[PREDICTION] = {"trial": len(self._values), **asdict(prediction)}
        new = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=values,
            distributions=self._study.ranges,
            user_attrs=attributes or None,
        )
        self._ids.append(self._storage.create_new_trial(self._id, new))
        self._values.append(values)

    def _next_of_portfolio(self) -> dict[str, Any] | None:
        """Return the next values of the portfolio that meet the bounds; None: it has none."""
        while self._place < len(self._portfolio):
            values = dict(self._portfolio[self._place])
            self._place += 1
            if not self._bounds or self._allows(values):
                return values
        return None

    def _draw(self) -> tuple[dict[str, Any], int]:
        """Return values that meet the bounds, and the number of those that did not before. Raises SearchError.

        What past searches tried is drawn again a few times, as they may have had the same seed.
        """
        values = sample(self._sampler, self._study, self._seed)
        redrawn = 0
        for attempt in range(1, SAMPLED + DRAWN):
            is_allowed = not self._bounds or self._allows(values)
            if is_allowed and (attempt >= SAMPLED or values_key(values) not in self._tried):
                return values, redrawn
            redrawn += not is_allowed
            self.predictions.pop(len(self._values), None)  # of the refused values
            if attempt < SAMPLED:
                values = sample(self._sampler, self._study, self._seed, attempt)
            else:
                seed = trial_seed(self._seed, len(self._values), attempt)
                values = draw_values(self._space, np.random.default_rng(seed))
        assert self._bounds is not None
        raise SearchError(
            f"none of {DRAWN:,} random configurations meets {' and '.join(map(str, self._bounds.constraints))}: "
            "use another folder with --run, and another bound or space"
        )

    def _allows(self, values: Mapping[str, Any]) -> bool:
        """Return whether values of the ranges meet the bounds; ranges of a single value may be left out."""
        assert self._bounds is not None
        single = {name: c.to_external_repr(only_value(c)) for name, c in self._study.ranges.items() if c.single()}
        return self._bounds.allow({**single, **values, **self._space.fixed})

    def is_of_portfolio(self, trial: int) -> bool:
        """Return whether the configuration of `trial` is one of the portfolio with which the search began."""
        return trial in self._places

    def violation(self, trial: int) -> float:
        """Return how far a trial is beyond the measured constraints by its last results, 0 where it meets them."""
        return self._study.violation(trial)

    def tell(
        self,
        trial: int,
        epoch: int,
        loss: float | None,
        last: bool,
        seconds: float = 0.0,
        values: Mapping[str, float] | None = None,
    ) -> Mapping[int, float]:
        """Report the `loss` of `trial` at `epoch` to samplers and Optuna's tools; None: it failed.

        `last` is True at the trial's last epoch; samplers see the `seconds` of the job and the other `values` of the
        result. A restart must repeat the reports in the same order; losses that are in the journal are not written
        again. Returns by trial the priorities of results at `epoch` that may have changed: see `InMemoryStudy.tell`.
        """
        priorities = self._study.tell(trial, epoch, loss, last, seconds, values)
        if (point := vector(self._objectives, loss, values or {})) is not None:
            self._last[trial] = [o.minimized(value) for o, value in zip(self._objectives, point, strict=True)]
        known = self._attributes.setdefault(trial, {})
        for name, value in constraint_attributes(self._study.constraints, values or {}).items():
            if trial not in self._ended and known.get(name) != value:
                self._storage.set_trial_system_attr(self._ids[trial], name, value)
                known[name] = value
        if loss is not None and trial not in self._ended and (trial, epoch) not in self._reported:
            self._storage.set_trial_intermediate_value(self._ids[trial], epoch, loss)
            self._reported.add((trial, epoch))
        return priorities

    def end(self, states: Mapping[int, str]) -> None:
        """Store the final state of trials: "COMPLETE", "PRUNED" or "FAIL"; a state stored before is kept."""
        if len(self._volumes) > self._plotted:
            self._plot()
        for trial, state in states.items():
            if trial not in self._ended:
                reported = self._storage.get_trial(self._ids[trial]).intermediate_values
                values = None if state == "FAIL" or not reported else self._final_values(trial, reported)
                self._storage.set_trial_state_values(self._ids[trial], TrialState[state], values)
                self._ended.add(trial)

    def _final_values(self, trial: int, reported: Mapping[int, float]) -> list[float] | None:
        """Return the values of a trial at its end: its last loss, or the values of several objectives."""
        return [reported[max(reported)]] if self._objectives == SINGLE else self._last.get(trial)


class _Log(BaseJournalBackend):
    """Optuna's journal file with one writer: no lock files, read once, written and synced by `sync`.

    Its one reader is its writer, so lines are dropped once read. Without a path it is in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unread: list[dict[str, Any]] = []
        self._unwritten: list[dict[str, Any]] = []
        self._truncated = False
        if path is not None:
            with _writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._unread += JournalFileBackend(str(path)).read_logs(0)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._unread += logs
        if self._path is not None:
            self._unwritten += logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        unread, self._unread = self._unread, []
        return iter(unread)

    def sync(self) -> None:
        if self._path is None or not self._unwritten:
            return
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in self._unwritten).encode()
        self._unwritten = []  # no retry if this fails: the file may then end in an incomplete line
        with _writing(self._path):
            if not self._truncated:  # not on opening: a mere reader must not touch a line that is being written
                files.truncate_torn_line(self._path)
                self._truncated = True
            with open(self._path, "ab", buffering=0) as stream:
                if stream.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                files.to_disk(stream.fileno(), _sync)

    def cut(self, word: bytes) -> None:
        """Drop the first line that contains `word` and all lines after it."""
        self.sync()
        if self._path is None:
            return
        with _writing(self._path), open(self._path, "r+b") as stream:
            stream.truncate(sum(len(line) for line in takewhile(lambda line: word not in line, stream)))
            files.to_disk(stream.fileno(), _sync)


_sync = getattr(os, "fdatasync", os.fsync)  # syncs data and file size but not timestamps, in half the time


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SearchError(
            f"cannot write the journal {path}: {error.strerror}: fix that and start the search again to resume it"
        ) from error
