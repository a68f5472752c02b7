from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from ripieno.errors import LibraryError, SelectionError
from ripieno.tasks.conformal import interval, prediction_set
from ripieno.tasks.uncertainty import quantiles_of
from ripieno.tasks.uncertainty_outputs import (
    UNCERTAINTY_OUTPUTS,
    TiledUncertainty,
    UncertaintyOutputs,
    check_uncertainty,
)
from ripieno.types import AbstainRule, Coverage, Ensemble, SpreadCalibration, Task, classification

CLASSES = classification(("cat", "dog", "owl"))
VALUES = Task("regression", (2,), ("price", "age"))
PLAIN = Ensemble("B5", ("a", "b"), (0.5, 0.5), "smobf", {}, {}, {})
SURE = dataclasses.replace(
    PLAIN,
    coverage=(Coverage(0.9, "lac", (0.7,), 100), Coverage(0.5, "lac", (0.4,), 100)),
    abstain=AbstainRule(0.02, 0.6, 100),
    unusual=quantiles_of(np.arange(101) / 100),
)
MEASURED = dataclasses.replace(
    PLAIN,
    coverage=(Coverage(0.9, "residual", (1.0, 3.0), 100), Coverage(0.8, "spread", (2.0, 2.0), 9, floors=(0.1, 0.1))),
)
WIDE = dataclasses.replace(PLAIN, spread_calibration=SpreadCalibration((2.0, 0.0), (0.3, 1.5), 100))
WIDTH = ("standard_deviation",)
PREDICTIONS = np.float32([[0.55, 0.35, 0.1], [0.61, 0.29, 0.1]])


def test_an_ensemble_has_the_outputs_that_were_fitted() -> None:
    always = ("entropy", "mutual_information")
    assert UncertaintyOutputs(PLAIN, CLASSES).names == always
    assert UncertaintyOutputs(SURE, CLASSES).names == ("prediction_set", *always, "unusual", "abstain")
    assert UncertaintyOutputs(PLAIN, VALUES).names == ()
    assert UncertaintyOutputs(MEASURED, VALUES).names == ("lower", "upper")
    assert UncertaintyOutputs(WIDE, VALUES).names == UncertaintyOutputs(WIDE, VALUES).in_tables == WIDTH
    both = UncertaintyOutputs(dataclasses.replace(MEASURED, spread_calibration=WIDE.spread_calibration), VALUES)
    assert both.by_target == ("lower", "upper", *WIDTH)
    assert both.covered == ("lower", "upper")
    assert set(UNCERTAINTY_OUTPUTS) >= {*UncertaintyOutputs(SURE, CLASSES).names, "lower", "upper"}


def test_the_numbers_are_those_of_their_definitions() -> None:
    outputs = UncertaintyOutputs(SURE, CLASSES)
    apart = np.float32([0.25, 2.0])

    def computed(name: str) -> list[object]:
        return outputs.compute(name, PREDICTIONS, disagreement=apart).tolist()

    assert computed("prediction_set") == [[True, True, False], [True, False, False]]
    assert computed("abstain") == [True, False]
    assert computed("mutual_information") == [0.25, 2.0]
    assert computed("unusual") == pytest.approx([0.25, 1])
    assert computed("entropy") == pytest.approx((-PREDICTIONS * np.log(PREDICTIONS)).sum(axis=1).tolist(), rel=1e-5)


def test_a_sample_at_the_threshold_is_answered() -> None:
    confidence = float(PREDICTIONS[1, 0])
    ensemble = dataclasses.replace(PLAIN, abstain=AbstainRule(0.02, confidence, 100))
    assert UncertaintyOutputs(ensemble, CLASSES).abstains(PREDICTIONS).tolist() == [True, False]


def test_the_first_level_is_the_default_and_others_are_named() -> None:
    outputs = UncertaintyOutputs(SURE, CLASSES)
    assert [outputs.coverage(level).level for level in (None, 0.5, np.float32(0.9))] == [0.9, 0.5, 0.9]
    second = outputs.compute("prediction_set", PREDICTIONS, level=0.5)
    assert second.tolist() == prediction_set(PREDICTIONS, SURE.coverage[1]).tolist()
    with pytest.raises(SelectionError, match=r"coverage is 0.8, must be 0.9 or 0.5: the levels that B5 has$"):
        outputs.coverage(0.8)
    with pytest.raises(SelectionError, match=r"no coverage\. Fit it with `ripieno coverage RUN B5 --coverage 0\.9`"):
        UncertaintyOutputs(PLAIN, CLASSES).coverage()


def test_bounds_are_those_of_the_level_and_need_the_spread_only_where_it_scales_them() -> None:
    outputs, values = UncertaintyOutputs(MEASURED, VALUES), np.float32([[1, 10]])
    spread = np.float32([[0.5, 2]])
    assert outputs.compute("lower", values).tolist() == [[0, 7]]
    assert outputs.compute("upper", values).tolist() == [[2, 13]]
    low, high = interval(values, MEASURED.coverage[1], spread)
    assert outputs.compute("lower", values, spread=spread, level=0.8).tolist() == low.tolist()
    assert outputs.compute("upper", values, spread=spread, level=0.8).tolist() == high.tolist()
    assert outputs.needs(["lower"]) == (False, False)
    assert outputs.needs(["values", "upper"], 0.8) == (True, False)


def test_a_deviation_is_the_root_of_the_scaled_spread_and_the_floor() -> None:
    outputs = UncertaintyOutputs(WIDE, VALUES)
    found = outputs.compute("standard_deviation", np.float32([[1, 10]]), spread=np.float32([[0.2, 9]]))
    assert found.tolist() == [[pytest.approx(0.5), 1.5]]
    assert outputs.needs(WIDTH) == (True, False)


def test_only_the_disagreement_is_asked_of_the_engine_and_only_where_it_is_used() -> None:
    outputs = UncertaintyOutputs(SURE, CLASSES)
    assert outputs.needs(["probabilities", "label", "spread", "members"]) is None
    assert outputs.needs(["prediction_set", "entropy", "abstain"]) == (False, False)
    assert outputs.needs(["unusual"]) == outputs.needs(["mutual_information"]) == (False, True)


@pytest.mark.parametrize(
    ("ensemble", "task", "name", "words"),
    [
        (
            PLAIN,
            CLASSES,
            "prediction_set",
            r"B5 has no coverage\. Fit it with `ripieno coverage RUN B5 --coverage 0\.9`",
        ),
        (
            PLAIN,
            CLASSES,
            "abstain",
            r"B5 has no rule to abstain\. Fit it with `ripieno coverage RUN B5 --abstain",
        ),
        (PLAIN, CLASSES, "unusual", r"B5 has no figures of what is usual\. Fit it with `ripieno coverage"),
        (SURE, CLASSES, "lower", r"A classification has no lower\. Request prediction_set\."),
        (MEASURED, VALUES, "prediction_set", r"A regression has no prediction_set\. Request lower or upper\."),
        (MEASURED, VALUES, "mutual_information", r"A regression has no mutual information\. Request spread\."),
        (SURE, CLASSES, "standard_deviation", r"A classification has no standard deviation\. Request spread\."),
        (
            MEASURED,
            VALUES,
            "standard_deviation",
            r"B5 has no standard deviation\. Fit it with `ripieno coverage RUN B5",
        ),
        (MEASURED, VALUES, "abstain", r"A regression has no abstain\. Request spread\."),
        (dataclasses.replace(PLAIN, members=("a",)), CLASSES, "unusual", "B5 has a single member, which disagrees"),
    ],
)
def test_what_an_ensemble_lacks_is_told_with_the_mend(ensemble: Ensemble, task: Task, name: str, words: str) -> None:
    said = UncertaintyOutputs(ensemble, task).missing(name)
    assert re.match(words, said), said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("task", "changes", "words"),
    [
        (VALUES, {"abstain": AbstainRule(0.02, 0.5, 9)}, "a rule to abstain, which a regression does not have"),
        (
            CLASSES,
            {"abstain": AbstainRule(0.02, 0.5, 9, "luck")},
            "a rule to abstain by 'luck', must be by 'confidence'",
        ),
        (CLASSES, {"abstain": AbstainRule(0.02, float("nan"), 9)}, "a rule to abstain without a threshold"),
        (CLASSES, {"spread_calibration": SpreadCalibration((1,), (1,), 9)}, "a standard deviation, which a class"),
        (VALUES, {"spread_calibration": SpreadCalibration((1,), (1,), 9)}, "another number of scales or floors"),
        (VALUES, {"spread_calibration": SpreadCalibration((1, -1), (1, 1), 9)}, "a standard deviation with a scale"),
        (VALUES, {"spread_calibration": SpreadCalibration((1, 1), (1, 0), 9)}, "a standard deviation with a scale"),
        (CLASSES, {"unusual": (0.5,)}, "a single quantile of what is usual, must be none or several"),
        (CLASSES, {"unusual": (0.5, 0.4)}, "quantiles of what is usual that do not rise"),
        (CLASSES, {"unusual": (0.5, float("nan"))}, "quantiles of what is usual that do not rise"),
    ],
)
def test_what_was_read_and_cannot_be_served_is_refused(task: Task, changes: dict[str, Any], words: str) -> None:
    check_uncertainty(SURE, CLASSES, "bundle.json", LibraryError)
    check_uncertainty(MEASURED, VALUES, "bundle.json", LibraryError)
    check_uncertainty(WIDE, VALUES, "bundle.json", LibraryError)
    with pytest.raises(LibraryError, match=f"^bundle.json: its ensemble has {words}"):
        check_uncertainty(dataclasses.replace(PLAIN, **changes), task, "bundle.json", LibraryError)


def test_a_picture_in_tiles_has_the_means_of_its_tiles() -> None:
    pixels = Task("segmentation", (1, 1, 3), ("a", "b", "c"))
    outputs = UncertaintyOutputs(SURE, pixels)
    tiled = TiledUncertainty(outputs)
    single = PREDICTIONS[:, None, None]
    tiled.add(single[:1], np.float32([0.2]))
    tiled.add(single[1:], np.float32([0.6]))
    found = tiled.compute(0.5)
    assert list(found) == [name for name in outputs.names if name != "prediction_set"]
    assert found["mutual_information"] == pytest.approx(0.4)
    assert found["unusual"] == pytest.approx(0.4, rel=1e-5)
    assert found["entropy"] == pytest.approx(outputs.compute("entropy", single).mean(), rel=1e-5)
    assert found["abstain"] is True
    assert tiled.compute(0.6)["abstain"] is False
