"""Searches that learn from earlier runs, and the folder of their records."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import ripieno
from ripieno.errors import BrokenFileWarning, LibraryError, SearchError
from ripieno.library.history import History, read_record
from ripieno.pipeline.warm_start import (
    FILE,
    built_in_names,
    built_in_portfolio,
    describe,
    plan_warm_start,
    read_sources,
)
from ripieno.search.built_in_spaces import SPACES
from ripieno.search.space import Integer, Space
from ripieno.search.warm_start import WarmStart, translate
from tests.command_line import ripieno as command_line

SPACE = {"ranges": {"rate": {"kind": "continuous", "low": 0.01, "high": 1.0, "log": True}}}
NARROW = {"ranges": {"rate": {"kind": "continuous", "low": 0.2, "high": 1.0, "log": True}}}
LINEAR = "tests.own_trainer:Linear"


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two small searches, `a` and `b`, and a third set `c.npz`."""
    folder, source = tmp_path_factory.mktemp("past"), load_digits()
    images = (source.images[..., None] * 15).astype(np.uint8)
    for number, name in enumerate("abc"):
        rows = slice(120 * number, 120 * (number + 1) + 30 * number)
        np.savez(folder / f"{name}.npz", images=images[rows], labels=source.target[rows] % (10 - number))
    for name, space in (("space", SPACE), ("narrow", NARROW)):
        (folder / f"{name}.json").write_text(json.dumps(space))
    for seed, name in enumerate("ab"):
        tune(folder, name, data=folder / f"{name}.npz", trials=5, epochs=3, seed=seed, free="off")
    return folder


def tune(folder: Path, run: str | Path, data: Path | None = None, space: str = "space", **options: Any) -> Any:
    path = folder / f"{space}.json"
    return ripieno.tune(data, folder / run, space=str(path), trainer=LINEAR, pool="inline", **options)


def rates(run: Path) -> list[float]:
    found = {m.trial: float(m.configuration["rate"]) for m in ripieno.Library(run).members() if m.trial >= 0}
    return [found[trial] for trial in sorted(found)]


def plain(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_search_begins_with_the_best_of_earlier_runs_and_needs_them_no_more(past: Path, tmp_path: Path) -> None:
    shutil.copytree(past / "a", tmp_path / "a")
    notes: list[str] = []
    options = {"epochs": 3, "seed": 7, "trials": 6, "free": "off"}
    tune(past, tmp_path / "new", past / "c.npz", "narrow", from_=[tmp_path / "a", past / "b"], notes=notes, **options)
    assert "3 configurations of 2 earlier runs start the search" in notes
    warm = plain(tmp_path / "new" / FILE)
    assert rates(tmp_path / "new")[:3] == [values["rate"] for values in warm["portfolio"]]
    assert all(rate >= 0.2 for rate in rates(tmp_path / "new"))  # clipped to the new range
    kept = plain(tmp_path / "new" / "run.json")["warm_start"]
    assert [name.rpartition("-")[0] for name in kept] == ["a", "b"]
    again = tmp_path / "again"
    tune(past, again, past / "c.npz", "narrow", from_=[tmp_path / "a", past / "b"], **options)
    assert rates(again) == rates(tmp_path / "new")

    shutil.rmtree(tmp_path / "a")  # the earlier run is gone: the same command resumes
    before = rates(tmp_path / "new")
    options["trials"] = 8
    tune(past, tmp_path / "new", past / "c.npz", "narrow", from_=[tmp_path / "a", past / "b"], **options)
    tune(past, tmp_path / "new", space="narrow", trials=9)
    assert rates(tmp_path / "new")[:6] == before
    assert len(rates(tmp_path / "new")) == 9
    assert plain(tmp_path / "new" / FILE) == warm
    with pytest.raises(SearchError, match=r"learned from a-\w+, b-\w+, not from other: leave --from out"):
        tune(past, tmp_path / "new", space="narrow", trials=9, from_="other")
    (tmp_path / "new" / FILE).unlink()
    with pytest.raises(SearchError, match=r"warm_start.json does not exist: restore it"):
        tune(past, tmp_path / "new", space="narrow", trials=9)


def test_a_search_without_earlier_runs_stays_without(past: Path) -> None:
    with pytest.raises(SearchError, match=r"learned from no earlier run, not from .*b: leave --from out to resume"):
        tune(past, "a", trials=5, from_=past / "b")
    assert "warm_start" not in plain(past / "a" / "run.json")
    assert not (past / "a" / FILE).exists()


def test_records_are_small_and_replace_those_of_their_search(past: Path, tmp_path: Path) -> None:
    first, second = ripieno.add_history([past / "a", past / "b"], tmp_path / "history")
    record = read_record(first)
    assert record.name == first.stem
    assert record.data is not None
    assert (record.data.kind, record.data.task, record.data.shape, record.data.classes) == (
        "image", "classification", (8, 8, 1), 10
    )  # fmt: skip
    assert sum(record.data.samples.values()) == 120
    assert record.epochs == 3
    assert sorted(t.values["rate"] for t in record.trials) == pytest.approx(sorted(rates(past / "a")))
    best = min(loss for trial in record.trials for _, loss, _ in trial.results if loss is not None)
    assert best == min(m.loss for m in ripieno.Library(past / "a").members() if m.trial >= 0)
    assert all(seconds > 0 for trial in record.trials for _, _, seconds in trial.results)
    assert first.stat().st_size < 2000

    shutil.copytree(past / "a", tmp_path / "moved")
    (moved,) = ripieno.add_history(tmp_path / "moved", tmp_path / "history")
    assert moved.stem.rpartition("-")[0] == "moved"
    assert History(tmp_path / "history").names() == sorted([moved.stem, second.stem])

    other = tmp_path / "other machine"
    ripieno.add_history(past / "a", other)
    shutil.copy(second, other)
    assert [r.name for r in ripieno.list_history(other)] == [first.stem, second.stem]
    ripieno.forget_history(first.stem, other)
    assert [r.name for r in ripieno.list_history(other)] == [second.stem]


def test_a_history_gives_what_its_runs_give(past: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ripieno.add_history([past / "a", past / "b"], tmp_path / "history")
    options = {"epochs": 3, "trials": 4, "free": "off"}
    tune(past, tmp_path / "runs", past / "c.npz", from_=[past / "a", past / "b"], **options)
    monkeypatch.setenv("RIPIENO_HISTORY", str(tmp_path / "history"))
    tune(past, tmp_path / "records", past / "c.npz", **options)
    assert plain(tmp_path / "records" / FILE) == plain(tmp_path / "runs" / FILE)
    tune(past, tmp_path / "both", past / "c.npz", from_=past / "a", **options)  # a counts once
    assert len(plain(tmp_path / "both" / FILE)["sources"]) == 2
    shutil.rmtree(tmp_path / "history")
    tune(past, tmp_path / "records", trials=5)  # resumed without the folder


def test_what_cannot_be_learned_from_is_one_clear_line(past: Path, tmp_path: Path) -> None:
    data, run = past / "c.npz", tmp_path / "run"
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryError, match="empty is not a run"):
        tune(past, run, data, trials=1, epochs=1, from_=tmp_path / "empty")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(past / "a", unfinished)
    lines = (unfinished / "journal.log").read_text().splitlines()
    (unfinished / "journal.log").write_text("\n".join(x for x in lines if '"arrived"' not in x) + "\n")
    with pytest.raises(SearchError, match="unfinished has no finished trials to learn from"):
        tune(past, run, data, trials=1, epochs=1, from_=unfinished)
    (unfinished / "run.json").unlink()
    with pytest.raises(SearchError, match="unfinished has no search to learn from"):
        tune(past, run, data, trials=1, epochs=1, from_=unfinished)
    with pytest.raises(LibraryError, match=r"history .*nowhere does not exist: `ripieno history add RUN"):
        tune(past, run, data, trials=1, epochs=1, history=tmp_path / "nowhere")
    (record,) = ripieno.add_history(past / "a", tmp_path / "history")
    text = record.read_text()
    record.write_text(text.replace('"version":1', '"version":99', 1))
    with pytest.raises(LibraryError, match=r"has version 99, above 1, the latest known: upgrade ripieno$"):
        tune(past, run, data, trials=1, epochs=1, from_=record)
    record.write_text(text[:-20])
    with pytest.raises(LibraryError, match=r"cannot be read: .*; remove it, or copy it again$"):
        tune(past, run, data, trials=1, epochs=1, from_=record)
    with pytest.warns(BrokenFileWarning, match="skipped 1 of the records of"):
        assert ripieno.list_history(tmp_path / "history") == []
    record.write_text(text.replace("[[1,", "[[0,"))
    with pytest.raises(LibraryError, match="is broken: it has a result after 0 epochs"):
        tune(past, run, data, trials=1, epochs=1, from_=record)
    record.write_text("{}\n")
    with pytest.raises(LibraryError, match="is no record of a search"):
        tune(past, run, data, trials=1, epochs=1, from_=record)
    with pytest.raises(SearchError, match="no folder of records is named: pass --history DIR"):
        ripieno.list_history()
    assert not run.exists()
    options = {"trainer": "trees:extra-trees", "pool": "inline", "trials": 2, "free": "off"}
    with pytest.raises(SearchError, match=r"^a-\w+ is a search of space .*, of family tests.own_trainer:Linear, not"):
        ripieno.tune(data, run, from_=past / "a", **options)  # type: ignore[arg-type]
    assert not run.exists()


def test_a_history_without_a_search_of_the_space_is_said(past: Path, tmp_path: Path) -> None:
    (record,) = ripieno.add_history(past / "a", tmp_path / "history")
    record.write_text(record.read_text().replace(LINEAR, "another:Trainer"))
    notes: list[str] = []
    tune(past, tmp_path / "new", past / "c.npz", trials=2, epochs=1, history=tmp_path / "history", notes=notes)
    assert [note for note in notes if "none of it is used" in note]
    assert "warm_start" not in plain(tmp_path / "new" / "run.json")


def test_the_command_adds_lists_and_forgets(past: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    added = command_line("history", "add", past / "a", past / "b", "--history", folder, "--json")
    assert added.returncode == 0, added.stderr
    names = [record["name"] for record in json.loads(added.stdout)["records"]]
    assert [name.rpartition("-")[0] for name in names] == ["a", "b"]
    listed = command_line("history", "list", "--history", folder)
    assert all(name in listed.stdout for name in names)
    forgotten = command_line("history", "forget", names[0], "--history", folder)
    assert forgotten.returncode == 0
    assert History(folder).names() == names[1:]
    for words, message in (
        (("forget", "x"), f"{folder} has no record 'x'; there are: {names[1]}"),
        (("forget",), "history forget needs the name of a record"),
        (("add",), "history add needs a run"),
        (("add", tmp_path), f"{tmp_path} is not a run"),
        (("list", "x"), "history list takes no names"),
        (("drop", "x"), "no action 'drop' of history; there are: add, list, forget"),
        ((), "Missing argument 'action'"),
    ):
        failed = command_line("history", *words, "--history", folder)
        assert failed.returncode == 2
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert History(folder).names() == names[1:]


def test_the_line_on_what_was_taken() -> None:
    one, shipped = WarmStart(("a",), ({},)), WarmStart(("a", "b", "built-in table"), ({}, {}))
    assert describe(one, 1) == "1 configuration of 1 earlier run starts the search"
    assert (
        describe(shipped, 2) == "2 configurations of 2 earlier runs and the built-in table portfolio start the search"
    )


def test_built_in_portfolios_are_of_their_spaces_and_say_what_they_were_made_from() -> None:
    names = built_in_names()
    assert names
    for name in names:
        found, space = built_in_portfolio(name), SPACES[name]
        assert found is not None
        assert found.space == name
        assert found.configurations
        assert all(translate(space, space, values) == values for values in found.configurations)
        assert len(set(map(str, found.configurations))) == len(found.configurations)
        assert all(about["trials"] > 0 and about["name"] for about in found.made_from)
        assert [len(losses) for losses in found.losses] == [len(found.made_from)] * len(found.configurations)
        assert f"| `{name}` |" in (Path(__file__).parents[2] / "docs" / "history.md").read_text()


def test_a_built_in_portfolio_is_used_where_the_word_asks_for_it(past: Path) -> None:
    shipped, notes = built_in_portfolio("extra-trees"), list[str]()
    space = SPACES["extra-trees"]
    assert shipped is not None
    for sources in (read_sources("built-in", None), read_sources(None, "built-in")):
        found = plan_warm_start(sources, space, 9, 8, notes)
        assert found.portfolio == shipped.configurations[:4]
        assert found.sources == ("built-in extra-trees",)
        assert notes.pop() == "4 configurations of the built-in extra-trees portfolio start the search"
    assert not plan_warm_start(read_sources(None, None), space, 9, 8, notes)
    narrow = replace(space, ranges={**space.ranges, "min_samples_leaf": Integer(1, 2)})
    fitted = plan_warm_start(read_sources("built-in", None), narrow, 9, None, notes).portfolio
    assert max(int(values["min_samples_leaf"]) for values in fitted) == 2
    other = Space("mine", "trees:extra-trees", space.ranges)
    with pytest.raises(SearchError, match=r"space mine has no built-in portfolio; there are: .*extra-trees"):
        plan_warm_start(read_sources("built-in", None), other, 9, None, [])
    assert not plan_warm_start(read_sources(None, "built-in"), other, 9, None, notes)
    assert "space mine has no built-in portfolio" in notes[-1]
