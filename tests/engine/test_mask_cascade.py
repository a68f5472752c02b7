"""Cascades of segmentations: an image stops as a whole, and what it saves and costs is counted by pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ripieno.engine import Cascade, judge_cascade, plan_cascade
from ripieno.engine import cascade as cascade_module
from ripieno.errors import EngineError
from ripieno.tasks import pixels
from ripieno.tasks.registry import kind_of
from tests.pixel_members import TASK, make_masks, predict_masks

MASKS = make_masks(30)
MEMBERS = predict_masks(MASKS, 3)
"""Of growing uncertainty."""
NAMES = ["a", "b", "c"]
COSTS = [4.0, 2.0, 1.0]
KIND = kind_of(TASK)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read four samples at a time."""
    monkeypatch.setattr(pixels, "BLOCK", 4 * 6 * 8 * 3)


def test_what_is_saved_and_lost_is_counted_image_by_image() -> None:
    threshold = float(np.median(KIND.confidence(MEMBERS[1])))
    effect = judge_cascade(Cascade(("b", "c", "a"), threshold), NAMES, MEMBERS, MASKS, COSTS, task=TASK)
    stopped, asked, paid = [], [], []
    for sample in range(len(MASKS)):
        for depth in (1, 2, 3):
            mean = MEMBERS[[1, 2, 0][:depth], sample].mean(axis=0)
            if mean.max(axis=-1).mean() >= threshold:
                break
        stopped.append(mean)
        asked.append(depth)
        paid.append(sum([2.0, 1.0, 4.0][:depth]) / 7)
    assert set(asked) >= {1, 3}
    assert effect.asked == pytest.approx(np.mean(asked))
    assert effect.saved == pytest.approx(1 - np.mean(paid))
    scores = KIND.scores(np.stack(stopped), MASKS, TASK)
    whole = KIND.scores(MEMBERS.mean(axis=0), MASKS, TASK)
    assert (effect.loss, effect.score) == pytest.approx((scores["cross_entropy"], scores["mean_iou"]), abs=1e-5)
    assert (effect.whole_loss, effect.whole_score) == pytest.approx(
        (whole["cross_entropy"], whole["mean_iou"]), abs=1e-5
    )


def test_a_plan_stays_within_its_tolerance_and_orders_by_a_sample_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    half = MEMBERS.astype(np.float16)
    planned = plan_cascade(NAMES, list(half), MASKS, COSTS, tolerance=0.05, task=TASK)
    effect = planned.effects["valid"]
    assert effect.loss - effect.whole_loss <= 0.05
    assert 0 < effect.saved < 1
    monkeypatch.setattr(cascade_module, "PIXELS", 30 * 20)
    assert plan_cascade(NAMES, list(half), MASKS, COSTS, tolerance=0.05, task=TASK).order == planned.order
    assert plan_cascade(NAMES, list(half), MASKS, [1.0, 50.0, 50.0], task=TASK).order[0] == "a"


def test_predictions_of_another_form_are_refused() -> None:
    with pytest.raises(EngineError, match="expected"):
        plan_cascade(NAMES, MEMBERS[..., 0], MASKS, COSTS, task=TASK)
