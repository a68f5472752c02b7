"""Errors of the command line are one line, and nothing is lost."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import ripieno, ripieno_process

MISTAKES = [
    (["tune", "nowhere", "--run", "new"], "nowhere"),
    (["tune", "nope"], "nope does not exist"),
    (["tune", "--run", "new"], "holds no data: give some"),
    (["tune", "--epochs", "9"], "epochs 3, requested is epochs 9"),
    (["tune", "images", "--size", "16"], "size none, not with size 16"),
    (["tune", "images", "--space", "nonsense"], "nonsense"),
    (["tune", "images", "--algorithm", "magic"], "magic"),
    (["tune", "images", "--split", "0.5,0.5"], "--split"),
    (["tune", "images", "--metric", "luck"], "metric is 'luck'"),
    (["tune", "images", "--epochs", "0"], "epochs 0"),
    (["tune", "images", "--trials", "0"], "trials 0"),
    (["tune", "images", "--hours", "-1"], "hours"),
    (["tune", "images", "--eta", "1"], "eta 1"),
    (["tune", "images", "--slots", "-2"], "slots"),
    (["tune", "images", "--pool", "cloud"], "pool"),
    (["tune", "images", "--device", "tpu"], "tpu"),
    (["tune", "images", "--limit", "0"], "limit 0"),
    (["tune", "images", "--per-device", "0"], "per_device 0"),
    (["show", "nowhere"], "nowhere is not a run"),
    (["show", "run", "--top", "0"], "--top 0"),
    (["show", "run", "--top", "-3"], "--top -3"),
    (["predict", "bundle", "images", "--top", "-1"], "--top -1"),
    (["top", "--every", "0"], "--every 0"),
    (["bench", "run"], "run is no bundle but a run; make a bundle of it with `ripieno allocate run ENSEMBLE"),
    (["show"], "Missing argument 'RUN': `ripieno show --help`"),
    (["show", "--tpo", "3"], "`ripieno show --help`"),
    (["sellect", "run"], "Did you mean 'select', 'reselect'?: `ripieno --help`"),
    (["measure", "nowhere"], "nowhere is not a run"),
    (["measure", "run", "--device", "cuda:7"], "cuda"),
    (["measure", "run", "--prune", "0"], "prune"),
    (["select", "run", "--budget", "-1"], "budget"),
    (["select", "run", "--budget", "much"], "much"),
    (["select", "run", "--budget", "1e-9"], "cheapest"),
    (["select", "run", "--method", "magic"], "magic"),
    (["select", "run", "--prune", "7"], "prune"),
    (["select", "run", "--calibrate", "magic"], "--calibrate 'magic' must be one of members, joint, none"),
    (["select", "run", "--calibrate", "joint", "--combiner", "vote"], "cross-entropy of a mean"),
    (["select", "run", "--starts", "-1"], "starts -1 is invalid"),
    (["front", "run", "--cv", "1"], "cv 1 is invalid: expected at least 2 folds"),
    (["allocate", "run", "B404"], "B404"),
    (["allocate", "run", "../escape"], "name"),
    (["bench", "nowhere"], "nowhere is no bundle"),
    (["cascade", "run", "nowhere"], "nowhere is no bundle"),
    (["serve", "nowhere"], "nowhere is no bundle"),
    (["export", "nowhere"], "nowhere is no bundle"),
    (["export", "bundle", "--form", "tar"], "--form"),
    (["predict", "nowhere", "images"], "nowhere is no bundle"),
    (["predict", "bundle", "nowhere.png"], "nowhere.png"),
    (["predict", "bundle", "broken.png"], "broken.png"),
    (["predict", "bundle", "wrong.npy"], "wrong.npy"),
    (["predict", "bundle", "images", "--output", "predictions.txt"], "must end in .csv, .parquet, .npy"),
    (["predict", "bundle", "images", "--output", "images"], "must end in .csv, .parquet, .npy"),
    (["predict", "bundle", "images", "broken.png"], "broken.png"),
    (["predict", "bundle", "broken.png", "--skip-bad"], "broken.png"),
    (["evaluate", "nowhere", "images"], "nowhere is no bundle"),
    (["evaluate", "bundle", "nowhere"], "nowhere does not exist"),
    (["evaluate", "bundle", "images", "--split", "half"], "--split 'half' must be one of auto"),
    (["evaluate", "bundle", "run"], "run"),
    (["tune", "images", "--run", "new", "--size", "99999"], "size is 99999"),
    (["report", "nowhere"], "nowhere"),
    (["front", "run", "--cost", "watts"], "watts"),
    (["select", "run", "--budget", "seconds=5", "20"], "cost=bound"),
    (["select", "run", "5"], "budgets follow --budget"),
    (["show", "run", "--sort", "luck"], "--sort"),
    (["soup", "nowhere"], "nowhere is not a run"),
    (["soup", "run"], "run has no trials on pretrained weights"),
    (["soup", "run", "--candidates", "1"], "candidates is 1"),
    (["evict", "run", "--quota", "lots"], "lots"),
    (["evict", "run", "--quota", "0"], "quota"),
    (["import", "nowhere.onnx", "--run", "run"], "nowhere.onnx"),
    (["import", "broken.onnx", "--run", "run"], "broken.onnx"),
    (["import", "wrong.npy", "--run", "run"], "wrong"),
    (["import", "broken.onnx", "wrong.npy", "--run", "run"], "one kind at a time"),
    (["import", "wrong.npy", "--run", "run", "--split", "train"], "--split"),
    (["import", "w.safetensors", "--run", "run", "--configuration", "depth"], "name=value"),
    (["allocate", "run", "B1", "--pin", "nonsense"], "B1"),
    (["demo", "--trials", "0"], "trials"),
]


@pytest.fixture(scope="module")
def folder(
    digit_folder: Path, finished_run: Path, finished_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("cli")
    shutil.copytree(digit_folder, path / "images")
    shutil.copytree(finished_run, path / "run")
    shutil.copytree(finished_bundle, path / "bundle")
    (path / "broken.png").write_bytes(b"\x89PNG nonsense")
    (path / "broken.onnx").write_bytes(b"nonsense")
    np.save(path / "wrong.npy", np.zeros((2, 3, 3, 3), np.uint8))
    return path


@pytest.mark.parametrize(("words", "says"), MISTAKES, ids=[" ".join(w) for w, _ in MISTAKES])
def test_a_mistake_gets_one_line_and_exit_code_2(folder: Path, words: list[str], says: str) -> None:
    before = {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*.json")}
    done = ripieno(*words, cwd=folder)
    assert done.returncode == 2, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert says in errors[0]
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "run").rglob("*.json")}


@pytest.mark.parametrize("words", [["show", "nowhere"], ["sellect", "run"], ["tune", "nope"]])
def test_a_process_ends_with_the_same_line_and_exit_code(folder: Path, words: list[str]) -> None:
    expected, done = ripieno(*words, cwd=folder), ripieno_process(*words, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (2, expected.stdout, expected.stderr)


def test_without_a_command_the_help_is_shown() -> None:
    assert "tune" in ripieno_process("--help").stdout


def test_select_twice_writes_the_same_bytes(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    written = []
    for _ in range(2):
        assert ripieno("select", tmp_path / "run", "--budget", "5", "20").returncode == 0
        written.append({p.name: p.read_bytes() for p in (tmp_path / "run" / "ensembles").iterdir()})
    assert {"B5.json", "B20.json"} <= set(written[0])
    assert written[0] == written[1]


def test_a_copied_bundle_predicts_the_same(finished_bundle: Path, digit_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_bundle, tmp_path / "elsewhere")
    arrays = []
    for number, bundle in enumerate((finished_bundle, tmp_path / "elsewhere")):
        output = tmp_path / f"{number}.npy"
        assert ripieno("predict", bundle, digit_folder / "digit-3", "--output", output).returncode == 0
        arrays.append(np.load(output))
    assert np.array_equal(arrays[0], arrays[1])


def test_predictions_of_a_folder_with_a_broken_picture_are_a_table_of_the_others(
    finished_bundle: Path, digit_folder: Path, tmp_path: Path
) -> None:
    odd = 'a, "b" [c]\nd.png'
    sound = sorted((digit_folder / "digit-3").iterdir())[0]
    for name in ("1.png", odd):
        shutil.copy(sound, tmp_path / name)
    (tmp_path / "2.png").write_bytes(sound.read_bytes()[:50])
    done = ripieno("predict", finished_bundle, ".", sound, "--skip-bad", "--output", "out.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2.png" in done.stderr
    with open(tmp_path / "out.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["1.png", odd, str(sound)]
    classes = [f"digit-{n}" for n in range(10)]
    assert list(rows[0]) == ["file", "prediction", "probability", "spread", *classes]
    for row in rows:
        values = [float(row[name]) for name in classes]
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert (row["prediction"], float(row["probability"])) == (classes[int(np.argmax(values))], max(values))


def test_predictions_are_imported_selected_and_listed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    models = {f"net-{n}": rng.dirichlet(np.ones(3) * 0.5, 40) * 0.5 + np.eye(3)[labels] * 0.5 for n in range(4)}
    np.savez(tmp_path / "library.npz", labels=labels, costs=np.arange(1.0, 5.0), **models)
    imported = ripieno("import", "library.npz", "--run", "run", cwd=tmp_path)
    assert imported.returncode == 0, imported.stderr
    assert "4 members" in imported.stdout
    chosen = ripieno("select", "run", "--budget", "3", cwd=tmp_path)
    assert chosen.returncode == 0, chosen.stderr
    listed = ripieno("show", "run", "--sort", "cost", cwd=tmp_path).stdout
    assert listed.index("net-0") < listed.index("net-3")
    assert "B3" in listed
    assert "expected" in chosen.stdout
    assert re.search(r"0\.\d{4} ± 0\.\d{4}", chosen.stdout)
    options = ["--method", "smobf-r", "--starts", "0", "--calibrate", "members", "--cv", "3", "--json"]
    (found,) = json.loads(ripieno("select", "run", "--budget", "3", *options, cwd=tmp_path).stdout)["ensembles"]
    assert (found["name"], found["calibration"]) == ("B3-smobf-r-members", "members")
    assert found["expected_loss_error"] > 0
    assert len(found["temperatures"]) == len(found["members"])
    front = json.loads(ripieno("front", "run", "--cv", "0", "--calibrate", "none", "--json", cwd=tmp_path).stdout)[
        "front"
    ]
    assert front["method"] == "smobf-r"
    assert [e["calibration"] for e in front["ensembles"]] == ["none"] * len(front["ensembles"])
    assert all(e["expected_loss"] is None for e in front["ensembles"])


def test_the_front_rises_in_cost_and_falls_in_loss(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    done = ripieno("front", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("front-")]
    assert [r[5] for r in rows] == ["±"] * len(rows), "the expected loss and its standard error come before"
    costs, losses = [float(r[2]) for r in rows], [float(r[7]) for r in rows]
    assert costs == sorted(costs)
    assert losses == sorted(losses, reverse=True)
    (following,) = (line.split("ripieno ", 1)[1] for line in done.stdout.splitlines() if "ripieno select" in line)
    chosen = ripieno(*following.split(), cwd=tmp_path)
    assert chosen.returncode == 0, chosen.stderr


def test_a_search_runs_on_a_ray_cluster_of_its_own(digit_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `cluster`")
    words = [
        "--pool",
        "ray",
        "--trials",
        "2",
        "--epochs",
        "1",
        "--space",
        "resnet-tiny",
        "--free",
        "off",
        "--algorithm",
        "random",
    ]
    done = ripieno_process("tune", digit_folder, "--run", "run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "run" / "library").glob("*/member.json"))) == 2
