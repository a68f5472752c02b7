"""The benchmarks of uncertainty on searched libraries, on digits: their figures are right where they are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIGURES = """
import argparse, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import planted_errors, searched, searched_coverage, unknown
import numpy as np
from ripieno.data import open_dataset
runs = Path(sys.argv[2])
options = argparse.Namespace(runs=runs, trials=3, epochs=3, slots=1, data=runs, series=runs)
clean, given = (open_dataset(searched.dataset_of(name, 0, options)) for name in ("digits", "digits-confusable"))
changed = given.targets != clean.targets
library = searched.search("digits-random", 0, options)
errors = planted_errors.rows("digits-random", 0, options)
coverage = searched_coverage.rows("digits", 0, library)
print(json.dumps({
    "planted": [int(changed.sum()), len(changed), int(changed[given.split == 2].sum())],
    "pairs": [[int(a), int(b)] for a, b in zip(clean.targets[changed], given.targets[changed])],
    "errors": errors,
    "error lines": planted_errors.summary(errors),
    "unknown": unknown.rows("digits", 0, library, runs),
    "coverage": coverage,
    "lines": searched_coverage.summary(coverage),
    "expected": searched_coverage.expected(0.9, 1000, 10**6),
}))
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("uncertainty")
    command = [sys.executable, "-c", FIGURES, str(BENCHMARKS / "uncertainty"), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_five_per_cent_of_the_labels_of_all_splits_are_replaced_by_others(figures: dict[str, Any]) -> None:
    changed, samples, of_test = figures["planted"]
    assert changed == round(0.05 * samples)
    assert 0.03 < of_test / (0.4 * samples) < 0.07
    # the forest mostly takes an eight for a one and a one for an eight
    pairs = [tuple(pair) for pair in figures["pairs"]]
    assert len(set(pairs)) < len(pairs) / 1.5


def test_planted_errors_are_found_by_what_was_not_trained_on_them(figures: dict[str, Any]) -> None:
    ensemble, single = figures["errors"]
    assert (ensemble["of"], single["of"], single["members"]) == ("ensemble", "best single", 1)
    for row in (ensemble, single):
        assert row["errors"] == pytest.approx(0.05 * row["judged"], rel=0.3)
        assert row["AUROC"] > 0.9
        assert row["precision"] <= row["listed"] <= 1
        assert row["suggested"] > 0.7
    assert [line["of"] for line in figures["error lines"]] == ["ensemble", "best single"]


def test_noise_is_told_from_digits_by_numbers_that_grow(figures: dict[str, Any]) -> None:
    rows = {(row["of"], row["by"]): row for row in figures["unknown"]}
    assert rows["ensemble", "entropy"]["AUROC"] > 0.6
    assert ("best single", "mutual information") not in rows
    assert all(row["low"] <= row["AUROC"] <= row["high"] for row in rows.values())


def test_coverage_holds_and_its_expected_range_is_that_of_the_samples_behind_it(figures: dict[str, Any]) -> None:
    low, high = figures["expected"]
    # of very many test samples, all the variance is that of the fit: 1.96 times the root of 0.09 / 1,000
    assert (low, high) == pytest.approx((0.9 - 0.0186, 0.9 + 0.0186), abs=0.001)
    rows = [row for row in figures["coverage"] if row["fitted"] == "all"]
    assert {(row["of"], row["level"]) for row in rows} == {
        (of, level) for of in ("ensemble", "best single") for level in (0.9, 0.95)
    }
    assert sum(row["within"] for row in rows) >= 3
    assert all(row["classes"] == 10 for row in rows)
    assert all(line["of single"] == 1 for line in figures["lines"] if line["of"] == "best single")
