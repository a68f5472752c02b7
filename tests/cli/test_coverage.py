"""`select --coverage` and `coverage` at the command line: table, notes, JSON, and one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import ripieno


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three imported networks and 600 validation samples, and an ensemble of them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    logits = rng.normal(size=(600, 3)) + 1.5 * np.eye(3)[labels]
    shares = np.exp(logits + 0.5 * rng.normal(size=(3, 600, 3)))
    shares /= shares.sum(axis=-1, keepdims=True)
    named = dict(zip("abc", shares.astype(np.float32), strict=True))
    np.savez(tmp_path / "nets.npz", labels=labels, costs=[1.0, 1.0, 1.0], **named)
    assert ripieno("import", "nets.npz", "--run", "run", cwd=tmp_path).returncode == 0
    return tmp_path / "run"


def test_select_fits_and_shows_the_coverage(run: Path) -> None:
    done = ripieno("select", run, "--budget", "3", "--coverage", "0.9,0.8", "--per-class", "--abstain", "0.25")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("B3")]
    assert [row[:7] for row in rows[1:3]] == [
        ["B3", "90", "%", "lac", "by", "class", "600"],
        ["B3", "80", "%", "lac", "by", "class", "600"],
    ]
    assert rows[3][:6] == ["B3", "error", "25", "%", "abstain", "600"]
    words = " ".join(done.stderr.split())
    assert "coverage and abstention fitted to 600 validation samples of the run" in words
    kept = json.loads((run / "ensembles" / "B3.json").read_text())
    assert [coverage["level"] for coverage in kept["coverage"]] == [0.9, 0.8]
    assert kept["abstain"]["error"] == 0.25


def test_coverage_adds_to_an_ensemble_that_stands(run: Path) -> None:
    assert ripieno("select", run, "--budget", "3").returncode == 0
    before = json.loads((run / "ensembles" / "B3.json").read_text())
    done = ripieno("coverage", run, "B3", "--coverage", "0.9", "--score", "raps", "--json")
    assert done.returncode == 0, done.stderr
    (coverage,) = json.loads(done.stdout)["ensemble"]["coverage"]
    assert (coverage["level"], coverage["score"], coverage["samples"], coverage["held_out"]) == (
        0.9,
        "raps",
        600,
        False,
    )
    after = json.loads((run / "ensembles" / "B3.json").read_text())
    assert after == before | {"coverage": [coverage]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--coverage", "1"), "coverage 1.0 is invalid: expected a number between 0 and 1, such as 0.9"),
        (("--coverage", "x"), "--coverage 'x' must be a number"),
        (("--coverage", "0.9", "--score", "best"), "--score 'best' must be one of lac, aps, raps"),
        (
            ("--coverage", "0.9", "--score", "fnr"),
            "score 'fnr' does not fit task classification: expected lac, aps, raps",
        ),
        (("--coverage", "0.9995"), "coverage 0.9995 needs at least 1,999 validation samples, and there are 600"),
        (("--coverage", "0.998", "--per-class"), "at least 499 validation samples of each class, and '0' has "),
        (("--per-class",), "coverage by class needs a coverage"),
        (("--abstain", "2"), "abstain 2.0 is invalid: expected an error between 0 and 1"),
        ((), "neither coverage nor abstain is given"),
    ],
)
def test_bad_input_is_one_line(run: Path, words: tuple[str, ...], message: str) -> None:
    assert ripieno("select", run, "--budget", "3").returncode == 0
    done = ripieno("coverage", run, "B3", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
