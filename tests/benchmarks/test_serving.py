"""Figures of the serving benchmarks: the peers' answers, the ratios and the settings in the table."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "engine"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "serving" / "peers"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "serving"))
from client import LOADS
from ensemble import Ensemble
from networks import Size, write_members
from ours import compared
from peers import markdown, report_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("networks")
    write_members(made, [Size(2, 1), Size(4, 1), Size(3, 1)])
    return made


def test_networks_asked_at_once_answer_as_those_asked_one_after_the_other(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    in_turn, at_once = Ensemble(folder), Ensemble(folder, helpers=2)
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda i: at_once(images[i : i + 2]), [*range(11)] * 4))
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer, in_turn(images[i % 11 : i % 11 + 2]), atol=1e-6)


def test_a_network_that_fails_at_once_fails_the_request(folder: Path) -> None:
    wrong = np.zeros((1, 31, 32, 3), np.uint8)
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        Ensemble(folder, helpers=1)(wrong)


def test_ratios_are_of_this_tree_to_the_other_in_one_round() -> None:
    rounds = [
        {"this": (20.0, 5.0, 9.0), "other": (10.0, 10.0, 9.0)},
        {"this": (30.0, 5.0, 9.0), "other": (10.0, 20.0, 9.0)},
    ]
    block = {"isolation": "thread", "protocol": "grpc", "taken": {"a": rounds}, "memory": {"this": 1.0, "other": 2.0}}
    (row,) = compared(block)
    assert (row["images/s x"], row["images/s range"]) == (2.5, "2.000-3.000")
    assert (row["p50 x"], row["p99 x"], row["MiB other"]) == (0.375, 1.0, 2.0)


def test_a_peer_is_reported_in_the_best_setting_of_each_load() -> None:
    best = {load.name: "quick" if load.samples > 1 else "calm" for load in LOADS}
    one = {"onnx floor": 100.0, "floor": 100.0, "onnx": [80.0, 2.0, 4.0, 0.0], "peer": [40.0, 4.0, 1300.0, 0.0]}
    block = {
        "peer": "bare",
        "best": best,
        "taken": {load.name: [one, one] for load in LOADS},
        "memory": {"onnx": 10.0, "quick": 30.0, "calm": 20.0},
    }
    rows = report_rows([block])
    found = {row["load"]: row for row in rows if row["server"] != "ripieno"}
    assert {name: (row["setting"], row["MiB"]) for name, row in found.items()} == {
        load.name: ("quick", 30.0) if load.samples > 1 else ("calm", 20.0) for load in LOADS
    }
    assert {(row["ours x"], row["p50 x"], row["of floor"]) for row in found.values()} == {(2.0, 0.5, 0.4)}
    cells = markdown(rows).splitlines()[-1].split(" | ")
    assert cells[1] == "0.40 (0.40-0.40); 4.0, 1,300"
    assert cells[-2:] == ["calm / calm / calm / quick", "20 to 30 |"]
