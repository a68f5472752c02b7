"""Predictions of several labels and of regressions on disk: import, selection, front and summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import ripieno
from ripieno import pipeline
from ripieno.cli.main import app
from ripieno.errors import LibraryError, SelectionError
from ripieno.tasks.calibration import calibrate_member, combine_calibrated
from ripieno.tasks.metrics import METRICS, macro_f1
from ripieno.tasks.registry import TASKS
from ripieno.types import loss_key

SAMPLES, MEMBERS = 90, 6
NAMES = {"multilabel": ("cat", "dog", "eel"), "regression": ("price", "area")}
COSTS = {f"m{i}": {"seconds": 1.0 + i / 3} for i in range(MEMBERS)}


def predictions_of(kind: str, split: str) -> tuple[dict[str, NDArray[np.float32]], NDArray[Any]]:
    rng = np.random.default_rng(3 if split == "valid" else 4)
    if kind == "multilabel":
        targets: NDArray[Any] = (rng.random((SAMPLES, 3)) < (0.2, 0.5, 0.7)).astype(np.uint8)
        logits = 2 * targets - 1.8 + rng.normal(size=(MEMBERS, SAMPLES, 3)) * 1.5
        found = 1 / (1 + np.exp(-logits))
    else:
        targets = (rng.normal(size=(SAMPLES, 2)) * (20, 0.1) + (100, 1)).astype(np.float32)
        found = targets + rng.normal(size=(MEMBERS, SAMPLES, 2)) * (15, 0.08)
    return {f"m{i}": p for i, p in enumerate(found.astype(np.float32))}, targets


def imported(run: Path, kind: str) -> ripieno.Library:
    for split in ("valid", "test"):
        predictions, targets = predictions_of(kind, split)
        costs = {"costs": COSTS} if split == "valid" else {}
        pipeline.import_(run, predictions, targets=targets, classes=NAMES[kind], task=kind, split=split, **costs)
    return ripieno.Library(run)


@pytest.fixture(params=["multilabel", "regression"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def run(tmp_path: Path, kind: str) -> ripieno.Library:
    return imported(tmp_path / "run", kind)


def test_members_hold_the_metrics_of_their_task(run: ripieno.Library, kind: str) -> None:
    predictions, targets = predictions_of(kind, "valid")
    member = run.member("m2")
    assert (member.task.kind, member.task.names) == (kind, NAMES[kind])
    expected = TASKS[kind].losses(predictions["m2"], targets, member.task)
    assert {k: v for k, v in member.losses.items() if k.startswith("valid")} == pytest.approx(expected)
    assert set(member.losses) == {f"{s}_{n}" for s in ("valid", "test") for n in TASKS[kind].metrics}
    assert member.loss == member.losses[loss_key(member.task)]
    assert np.array_equal(run.targets(), targets)
    assert run.targets().dtype == targets.dtype
    assert not run.has_truth("m2"), "a row for each label is no smaller than the predictions"


def test_an_ensemble_of_a_run_is_that_of_the_arrays(run: ripieno.Library, kind: str) -> None:
    predictions, targets = predictions_of(kind, "valid")
    ensemble = ripieno.select(run, 5.0)[0]
    cube, costs = np.stack(list(predictions.values())), [c["seconds"] for c in COSTS.values()]
    choice = ripieno.select_members(cube, targets, costs, 5.0, task=kind)
    assert ensemble.losses[f"valid_{TASKS[kind].metrics[0]}"] <= choice.loss + 1e-6
    assert ensemble.name == "B5"
    assert ensemble.loss == TASKS[kind].metrics[0].replace("_", "-")
    assert ensemble.combiner == "weighted"
    assert ensemble.calibration == ("members" if kind == "multilabel" else "none")
    assert ensemble.temperatures == (choice.temperatures if kind == "multilabel" else ())
    assert ensemble.temperature == pytest.approx(choice.temperature, rel=1e-5)
    assert ensemble.expected_loss is not None
    assert ensemble.losses[f"valid_{TASKS[kind].metrics[0]}"] < min(m.loss for m in run.members())
    assert set(ensemble.losses) == set(run.member("m0").losses)
    assert run.ensemble("B5") == ensemble


def test_thresholds_are_fitted_on_validation_and_judged_on_both(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", "multilabel")
    ensemble = ripieno.select(run, 5.0)[0]
    for split in ("valid", "test"):
        rows = [run.predictions(m, split) for m in ensemble.members]
        combined = combine_calibrated(rows, ensemble, TASKS["multilabel"])
        if split == "valid":
            assert ensemble.thresholds == TASKS["multilabel"].fit_thresholds(combined, run.targets())
        targets = run.targets(split)
        assert ensemble.losses[f"{split}_macro_f1"] == macro_f1(combined, targets, ensemble.thresholds)
        if split == "valid":
            assert ensemble.losses["valid_macro_f1"] > macro_f1(combined, targets)
    assert len(run.ensemble("B5").thresholds) == 3
    assert all(e.thresholds for e in ripieno.front(run, points=3).ensembles)


def test_temperatures_of_labels_are_kept_in_the_run_until_predictions_change(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", "multilabel")
    predictions, targets = predictions_of("multilabel", "valid")
    sharp = 1 / (1 + np.exp(-3 * np.log(predictions["m0"] / (1 - predictions["m0"]))))
    run.write_predictions("m0", "valid", sharp.astype(np.float32), targets)
    first = ripieno.select(run, 9.0)[0]
    fitted = calibrate_member(sharp.astype(np.float32), targets, TASKS["multilabel"])
    kept = ripieno.Library(run.path).calibration("m0")
    assert kept is not None
    assert kept.temperature == fitted.temperature == run.member("m0").temperature > 1.5
    np.testing.assert_allclose(kept.rows.truth, fitted.rows.truth, rtol=1e-6)
    assert ripieno.select(run, 9.0)[0] == first
    run.write_predictions("m0", "valid", predictions["m0"], targets)
    assert run.calibration("m0") is None


def test_the_deviation_of_values_is_fitted_on_validation_and_kept(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", "regression")
    ensemble = ripieno.select(run, 9.0)[0]
    assert len(ensemble.members) > 1
    rows = np.stack([run.predictions(m) for m in ensemble.members])
    kind, shares = TASKS["regression"], np.asarray(ensemble.weights)
    combined = kind.combine(rows, ensemble.weights, ensemble.combiner)
    fitted = kind.fit_spread(combined, run.targets(), kind.spread(rows, combined, shares))
    assert ensemble.spread_calibration == run.ensemble("B9").spread_calibration == fitted
    assert fitted is not None
    assert fitted.samples == SAMPLES
    # an ensemble of an older version has none until a coverage is fitted
    path = run.path / "ensembles" / "B9.json"
    document = json.loads(path.read_text())
    del document["spread_calibration"]
    path.write_text(json.dumps(document))
    assert run.ensemble("B9").spread_calibration is None
    assert ripieno.coverage(run, "B9", coverage=[0.9]).spread_calibration == fitted
    predictions, _ = predictions_of("regression", "valid")
    first = ensemble.members[0]
    pipeline.import_(run, {first: 3 * predictions[first]}, costs={first: COSTS[first]}, replace=True)
    assert run.ensemble("B9").spread_calibration != fitted
    labels = imported(tmp_path / "labels", "multilabel")
    assert ripieno.select(labels, 9.0)[0].spread_calibration is None


def test_a_replaced_member_has_its_ensembles_judged_and_fitted_again(tmp_path: Path) -> None:
    run = imported(tmp_path / "run", "multilabel")
    before = ripieno.select(run, 9.0)[0]
    predictions, _ = predictions_of("multilabel", "valid")
    first = before.members[0]
    pipeline.import_(run, {first: 1 - predictions[first]}, costs={first: COSTS[first]}, replace=True)
    after = run.ensemble("B9")
    assert after.thresholds != before.thresholds
    assert after.losses["valid_binary_cross_entropy"] > before.losses["valid_binary_cross_entropy"]


@pytest.mark.parametrize("loss", ["own", "score", "median"])
def test_losses_and_combiners_of_the_task_are_taken_and_named(run: ripieno.Library, kind: str, loss: str) -> None:
    options: dict[str, Any] = {
        "own": {"loss": TASKS[kind].metrics[0].replace("_", "-")},
        "score": {"loss": TASKS[kind].metrics[2].replace("_", "-"), "method": "smobf"},
        "median": {"combiner": "median"},
    }[loss]
    ensemble = ripieno.select(run, 5.0, **options)[0]
    name = {"own": "B5", "score": f"B5-smobf-{options.get('loss')}", "median": "B5-median"}[loss]
    assert ensemble.name == name
    key = ensemble.loss.replace("-", "_")
    assert METRICS[key].as_loss(ensemble.losses[f"valid_{key}"]) < 2 * min(
        METRICS[key].as_loss(m.losses[f"valid_{key}"]) for m in run.members()
    )


@pytest.mark.parametrize("option", [{"loss": "cross-entropy"}, {"combiner": "vote"}, {"loss": "accuracy"}])
def test_what_another_task_has_is_refused_before_anything_is_measured(
    run: ripieno.Library, kind: str, option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ripieno.pipeline.selection.ensure_profiles", lambda *_, **__: pytest.fail("measured"))
    for call in (lambda **o: ripieno.select(run, 5.0, **o), lambda **o: ripieno.front(run, **o)):
        with pytest.raises(SelectionError, match=f"does not fit task {kind}") as caught:
            call(**option)
        assert "\n" not in str(caught.value)


def test_labels_that_no_sample_has_are_noted_and_selected_from(tmp_path: Path) -> None:
    predictions, targets = predictions_of("multilabel", "valid")
    targets = targets.copy()
    targets[:, 1] = 0
    options: dict[str, Any] = {"classes": NAMES["multilabel"], "task": "multilabel", "costs": COSTS}
    pipeline.import_(tmp_path, predictions, targets=targets, **options)
    notes: list[str] = []
    ensemble = ripieno.select(tmp_path, 3.0, notes=notes)[0]
    assert "no validation sample is of label dog: the figures do not cover it" in notes
    assert ensemble.thresholds[1] == 0.5


def test_the_summary_names_the_metric_and_the_diversity_of_the_task(run: ripieno.Library, kind: str) -> None:
    ripieno.select(run, 5.0)
    summary = pipeline.show(run)
    assert summary.metric == {"multilabel": "macro-f1", "regression": "rmse"}[kind]
    rows = [run.predictions(m) for m in run.ids()]
    assert list(summary.diversity.values()) == TASKS[kind].disagreement(rows, run.targets())
    assert [m.id for m in summary.members] == sorted(run.ids(), key=lambda m: run.member(m).loss)


def test_dominated_members_are_evicted_by_the_loss_of_the_task(run: ripieno.Library, kind: str) -> None:
    evicted, _ = pipeline.evict(run, 1)
    best = min(run.members(), key=lambda m: m.loss)
    assert best.id not in {e.member for e in evicted}
    assert all(COSTS[e.by]["seconds"] <= COSTS[e.member]["seconds"] for e in evicted)


def test_commands_import_select_and_show_any_task(tmp_path: Path, kind: str) -> None:
    predictions, targets = predictions_of(kind, "valid")
    folder, run = tmp_path / "predictions", str(tmp_path / "run")
    folder.mkdir()
    for name, rows in predictions.items():
        lines = [",".join(NAMES[kind]), *(",".join(map(str, row)) for row in rows.tolist())]
        (folder / f"{name}.csv").write_text("\n".join(lines))
    table = [",".join(NAMES[kind]), *(",".join(map(str, row)) for row in targets.tolist())]
    (folder / "targets.csv").write_text("\n".join(table))
    (folder / "costs.csv").write_text("name,seconds\n" + "\n".join(f"{n},{c['seconds']}" for n, c in COSTS.items()))

    def call(*words: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    added = call("import", str(folder), "--run", run, "--task", kind)["added"]
    assert len(added) == MEMBERS
    assert np.array_equal(ripieno.Library(run).targets(), targets)
    ensemble = call("select", run, "--budget", "5")["ensembles"][0]
    assert ensemble["loss"] == TASKS[kind].metrics[0].replace("_", "-")
    assert len(ensemble["thresholds"]) == (3 if kind == "multilabel" else 0)
    call("front", run, "--points", "3")
    call("show", run)
    refused = CliRunner().invoke(app, ["select", run, "--budget", "5", "--loss", "accuracy"])
    assert refused.exit_code == 1
    expected = f"loss accuracy does not fit task {kind}: expected one of {ensemble['loss']}"
    assert expected in str(refused.exception)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": "ranking"}, "task 'ranking' is unknown: expected one of classification, multilabel, regression"),
        ({"task": "classification"}, "is a run of task .*, not classification; import into another run"),
        ({"classes": ("a", "b", "c", "d")}, "the names of the (targets|labels) differ from those of"),
        ({"targets": "NaN"}, "targets contain NaN|targets differ"),
        ({"targets": "text"}, "targets contain 'x' for sample 0: expected a number"),
        ({"targets": "short"}, r"the targets differ from those of .* \(number\)"),
        ({"predictions": "NaN"}, "new: .*NaN or infinit"),
        ({"predictions": "short"}, "new: predictions of 89 samples, but there are 90 targets"),
        ({"predictions": "copy"}, "new has exactly the predictions of m1"),
        ({"predictions": "wide"}, "new: predictions of . .*, must be of"),
    ],
)
def test_bad_imports_are_refused_in_one_line_and_change_nothing(
    run: ripieno.Library, kind: str, change: dict[str, Any], words: str
) -> None:
    predictions, targets = predictions_of(kind, "valid")
    rows = predictions["m1"].copy()
    given = {
        "copy": rows,
        "short": rows[:-1],
        "wide": np.hstack([rows, rows]),
        "NaN": np.where(np.arange(SAMPLES)[:, None] == 4, np.nan, rows),
    }.get(change.get("predictions", ""), rows * 0.97)
    wrong = {
        "NaN": np.where(np.arange(SAMPLES)[:, None] == 4, np.nan, targets),
        "text": np.full(targets.shape, "x"),
        "short": targets[:-1],
    }
    options = {k: v for k, v in change.items() if k not in ("predictions", "targets")}
    if "targets" in change:
        options["targets"] = wrong[change["targets"]]
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(LibraryError, match=words) as caught:
        pipeline.import_(run, {"new": given}, costs={"new": {"seconds": 1.0}}, **options)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_poor_predictions_are_noted(run: ripieno.Library, kind: str) -> None:
    predictions, _ = predictions_of(kind, "valid")
    notes: list[str] = []
    rows = 1 - predictions["m0"] if kind == "multilabel" else predictions["m0"] * 1000
    pipeline.import_(run, {"poor": rows}, costs={"poor": {"seconds": 1.0}}, notes=notes)
    assert any("poor has a" in note and "the mean of the targets" in note for note in notes)
    assert not any("m0 has" in note for note in notes)
