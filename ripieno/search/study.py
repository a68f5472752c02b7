"""The journal of a search: an Optuna study in one file of JSON lines, which any of Optuna's tools can read.

Theory of operation. All that happens is a list of events: a job is issued, a result is here. Event 41 is the study's user
attribute `event:000041`; the search's state is a fold over them (:mod:`ripieno.search.run`). The study's trials carry the
configurations, one line each, and, for Optuna's samplers and dashboard, the losses at rungs and how the trial ended; the
fold needs only the configurations. Lines are appended whole and synced to disk before a job is submitted. A driver that is
killed, or a disk that fills up, can leave half a last line: it is cut off on opening. One driver at a time writes (it
holds the run's lock), so Optuna's own file locks, which survive a kill, are not used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ripieno import files
from ripieno.errors import SearchError
from ripieno.search.samplers import sample
from ripieno.search.space import Space, distributions
from ripieno.types import Configuration

STUDY = "ripieno"
"""Name of the study."""


@dataclass(frozen=True)
class Issued:
    """A job was issued, when the scheduler had been told `told` results; `cost` is its virtual duration."""

    trial: int
    start: int
    stop: int
    cost: float
    told: int


@dataclass(frozen=True)
class Arrived:
    """The job that trains `trial` up to epoch `stop` ended after `seconds`, with a loss or with a reason why not."""

    trial: int
    stop: int
    loss: float | None
    seconds: float
    reason: str = ""
    message: str = ""


Event = Issued | Arrived
_KINDS: dict[str, type[Event]] = {"issued": Issued, "arrived": Arrived}


class Journal:
    """The study of a run at `path`, made when absent. Raises SearchError when it is broken or cannot be written."""

    def __init__(self, path: Path, space: Space, sampler: str, seed: int) -> None:
        self._space = space
        self._sampler = sampler
        self._seed = seed
        try:
            self._log = _Log(path)
            self._storage = JournalStorage(self._log)
        except (ValueError, KeyError) as error:
            raise SearchError(f"{path} is broken ({error}): restore it, or use another folder") from error
        with _quiet():
            self._study = optuna.create_study(
                storage=self._storage, study_name=STUDY, direction="minimize", load_if_exists=True
            )
        self._id = self._storage.get_study_id_from_name(STUDY)
        self._events = len(self.events())

    # events

    def events(self) -> list[Event]:
        """All events, in the order they happened."""
        attributes = self._storage.get_study_user_attrs(self._id)
        plain = [attributes[name] for name in sorted(attributes) if name.startswith("event:")]
        return [_KINDS[p["event"]](**{k: v for k, v in p.items() if k != "event"}) for p in plain]

    def append(self, event: Event) -> None:
        """Add an event; `sync` makes it durable."""
        kind = next(name for name, kind in _KINDS.items() if isinstance(event, kind))
        self._storage.set_study_user_attr(self._id, f"event:{self._events:06d}", {"event": kind, **asdict(event)})
        self._events += 1

    def sync(self) -> None:
        """Return when all that was written is on disk."""
        self._log.sync()

    def close(self) -> None:
        """Close the file."""
        self._log.close()

    # trials

    def configuration(self, trial: int) -> Configuration:
        """Configuration of trial number `trial`: as it was chosen, or chosen now when it is the next new one."""
        trials = self._trials()
        assert trial <= len(trials), f"trial {trial} asked for, {len(trials)} is next"
        if trial < len(trials):
            values = trials[trial].params
        else:
            values = sample(self._sampler, self._study, self._space, self._seed, trial)
            new = optuna.trial.create_trial(
                state=TrialState.RUNNING, params=values, distributions=distributions(self._space)
            )
            self._storage.create_new_trial(self._id, new)
        return {**{name: values[name] for name in self._space.ranges}, **self._space.fixed}

    def report(self, trial: int, epoch: int, loss: float) -> None:
        """Note the loss of a trial at a rung, for Optuna's eyes; nothing if it is there or the trial was ended."""
        known = self._trials()[trial]
        if not known.state.is_finished() and epoch not in known.intermediate_values:
            self._storage.set_trial_intermediate_value(self._trial_id(trial), epoch, loss)

    def end(self, states: Mapping[int, str]) -> None:
        """Note how trials ended: "COMPLETE", "PRUNED" or "FAIL"; a trial that was ended before stays as it is."""
        trials = self._trials()
        for trial, state in states.items():
            if not trials[trial].state.is_finished():
                reported = trials[trial].intermediate_values
                values = None if state == "FAIL" or not reported else [reported[max(reported)]]
                self._storage.set_trial_state_values(self._trial_id(trial), TrialState[state], values)

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def _trial_id(self, trial: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, trial)


class _Log(JournalFileBackend):
    """Optuna's journal file with one writer: no lock files, and a sync when we say so instead of one per line."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.mend_lines(path)
            super().__init__(str(path))
            self._stream = open(path, "ab", buffering=0)
        except OSError as error:
            raise _unwritable(str(path), error.strerror) from error

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        data = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        try:
            whole = self._stream.write(data) == len(data)
        except OSError as error:
            raise _unwritable(self._file_path, error.strerror) from error
        if not whole:
            raise _unwritable(self._file_path, "the disk is full")

    def sync(self) -> None:
        try:
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise _unwritable(self._file_path, error.strerror) from error

    def close(self) -> None:
        self._stream.close()


def _unwritable(path: str, why: str | None) -> SearchError:
    return SearchError(f"cannot write the journal {path}: {why}: mend that and start the search again, it goes on")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's announcements."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
