"""The journal: all written events are read back, whatever happened to the file's end."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import synthetic

from ripieno.errors import SearchError
from ripieno.search import SPACES, Integer
from ripieno.search.journal import STUDY, Event, JobFinished, JobSubmitted, Journal
from ripieno.types import Failure

EVENTS: list[Event] = [
    JobSubmitted(0, 0, 1, 5.5, 0),
    JobSubmitted(1, 0, 3, 2.0, 0),
    JobFinished(1, 3, None, 1.5, Failure("crash", "the worker was killed", log="logs/slot-0.log")),
    JobFinished(0, 1, 0.25, 0.5),
]


def journal_of(folder: Path, seed: int = 0) -> Journal:
    return Journal(folder / "journal.log", synthetic.SPACE, "random", seed)


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """Return the trials as Optuna's own tools read them."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    return optuna.load_study(study_name=STUDY, storage=optuna.storages.JournalStorage(backend)).trials


def test_events_are_read_back_in_order(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    for event in EVENTS[:3]:
        journal.append(event)
    journal.sync()
    journal = journal_of(tmp_path)
    journal.append(EVENTS[3])
    assert journal.events() == EVENTS
    assert journal_of(tmp_path).events() == EVENTS[:3]
    journal.sync()
    assert journal_of(tmp_path).events() == EVENTS


def test_numbers_of_a_result_are_read_back_and_an_event_without_any_is_as_it_always_was(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    events = [JobFinished(0, 1, 0.25, 0.5), JobFinished(1, 1, 0.5, 0.5, values={"joules": 3.5, "flops": 2e9})]
    for event in events:
        journal.append(event)
    journal.sync()
    assert journal_of(tmp_path).events() == events
    lines = (tmp_path / "journal.log").read_text().splitlines()
    assert ['"values"' in line for line in lines if '"event:' in line] == [False, True]


def test_a_million_events_stay_in_their_order(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    journal._events = 999_998
    events = [JobFinished(trial, 1, 0.5, 1.0) for trial in range(4)]
    for event in events:
        journal.append(event)
    journal.sync()
    assert journal_of(tmp_path).events() == events


@pytest.mark.parametrize("synced", [True, False])
def test_a_journal_that_is_cut_is_that_of_a_search_killed_before(tmp_path: Path, synced: bool) -> None:
    journal = journal_of(tmp_path)
    first = journal.configuration(0)
    numbers = [journal.append(event) for event in EVENTS[:2]]
    journal.sync()
    whole = (tmp_path / "journal.log").read_bytes()
    journal.configuration(1)
    numbers += [journal.append(event) for event in EVENTS[2:]]
    if synced:
        journal.sync()
    assert numbers == [0, 1, 2, 3]
    journal.truncate(None)
    journal.truncate(2)
    journal = journal_of(tmp_path)
    assert journal.events() == EVENTS[:2]
    assert (journal.configuration(0), len(trials(tmp_path))) == (first, 2)  # chosen before the event
    journal.append(EVENTS[3])
    journal.sync()
    assert (tmp_path / "journal.log").read_bytes().startswith(whole)
    assert journal_of(tmp_path).events() == [*EVENTS[:2], EVENTS[3]]


def test_configurations_depend_on_seed_and_trial_only_and_survive_a_restart(tmp_path: Path) -> None:
    journal = journal_of(tmp_path / "a")
    through = [journal.configuration(trial) for trial in range(4)]
    broken = []
    for trial in range(4):  # a new start before every trial
        journal = journal_of(tmp_path / "b")
        assert [journal.configuration(n) for n in range(trial)] == broken
        broken.append(journal.configuration(trial))
        journal.sync()
    assert len(trials(tmp_path / "b")) == 4
    assert through == broken
    assert len({str(c) for c in through}) == 4
    assert journal_of(tmp_path / "c", seed=1).configuration(0) != through[0]


def test_configurations_have_every_name_and_stay_in_range(tmp_path: Path) -> None:
    for space in SPACES.values():
        journal = Journal(tmp_path / f"{space.name}.log", space, "random", 0)
        configuration = journal.configuration(0)
        assert configuration.keys() == space.ranges.keys() | space.fixed.keys()
        for name, choice in space.ranges.items():
            value = configuration[name]
            if isinstance(choice, Integer):
                assert type(value) is int
                assert choice.low <= value <= choice.high


@pytest.mark.parametrize("keep", range(1, 40, 6))
def test_a_torn_last_line_is_cut_off_and_the_journal_goes_on(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "journal.log"
    journal = journal_of(tmp_path)
    configuration = journal.configuration(0)
    journal.append(EVENTS[0])
    journal.sync()
    whole = path.read_bytes()
    journal = journal_of(tmp_path)
    journal.append(EVENTS[1])
    journal.sync()
    path.write_bytes(path.read_bytes()[: len(whole) + keep])
    journal = journal_of(tmp_path)
    assert journal.events() == EVENTS[:1]
    journal.append(EVENTS[1])
    journal.sync()
    assert journal_of(tmp_path).events() == EVENTS[:2]
    assert journal_of(tmp_path).configuration(0) == configuration


def test_a_line_broken_in_the_middle_is_an_error_in_one_line(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    journal.append(EVENTS[0])
    journal.sync()
    path = tmp_path / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0][:20] + b"\n" + lines[1])
    with pytest.raises(SearchError, match=r"journal\.log is broken .*use another folder"):
        journal_of(tmp_path)


def test_optuna_reads_the_trials_with_their_losses_and_how_they_ended(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    for trial in range(4):
        journal.configuration(trial)
    for trial, epoch, loss in ((0, 1, 0.9), (0, 3, 0.5), (1, 1, 0.8)):
        journal.tell(trial, epoch, loss, epoch == 9)
    journal.end({0: "COMPLETE", 1: "PRUNED", 2: "FAIL"})
    journal.tell(1, 3, 0.7, False)  # promoted by a later start: only the events count
    journal.end({1: "COMPLETE"})
    journal.sync()
    seen = trials(tmp_path)
    assert [t.state.name for t in seen] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert seen[0].intermediate_values == {1: 0.9, 3: 0.5}
    assert [t.value for t in seen] == [0.5, 0.8, None, None]


def test_opening_says_nothing_and_leaves_optunas_voice_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    journal_of(tmp_path).configuration(0)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before
