from __future__ import annotations

import dataclasses

import fake_members as fake
import numpy as np
import pytest

from ripieno.engine import Cascade, Engine, RestartPolicy, bench, judge_cascade, plan_cascade
from ripieno.errors import EngineError


def validation(members=3, samples=400, classes=4, seed=0):
    """Probabilities of members of growing skill, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    logits = rng.normal(size=(members, samples, classes))
    logits[:, np.arange(samples), labels] += np.linspace(2, 4, members)[:, None] * rng.random(samples)
    powers = np.exp(logits)
    return powers / powers.sum(2, keepdims=True), labels


def stepwise(bundle, images, cascade):
    """Answer and depth of the cascade, computed sample by sample."""
    own = fake.each(bundle, images)
    order = [bundle.ensemble.members.index(m) for m in cascade.order]
    answers, depths = [], []
    for sample in range(len(images)):
        for depth in range(1, len(order) + 1):
            mean = own[order[:depth], sample].mean(0)
            if mean.max() >= cascade.threshold:
                break
        answers.append(mean)
        depths.append(depth)
    return np.array(answers), np.array(depths)


def test_a_cascade_stays_within_its_tolerance_and_says_what_it_saves_and_costs():
    predictions, labels = validation()
    cascade = plan_cascade(["a", "b", "c"], predictions, labels, [1.0, 2.0, 4.0], tolerance=0.05)
    assert sorted(cascade.order) == ["a", "b", "c"]
    effect = cascade.effects["valid"]
    assert effect.loss - effect.whole_loss <= 0.05
    assert 0 < effect.saved < 1
    assert effect.whole_score == (predictions.mean(0).argmax(1) == labels).mean()
    whole = -np.log(predictions.mean(0)[np.arange(len(labels)), labels]).mean()
    assert effect.whole_loss == pytest.approx(whole, abs=1e-5)


def test_what_is_saved_and_lost_is_counted_sample_by_sample():
    predictions, labels = validation(samples=60)
    costs, cascade = [1.0, 2.0, 4.0], Cascade(("b", "c", "a"), 0.7)
    effect = judge_cascade(cascade, ["a", "b", "c"], predictions, labels, costs)
    paid, asked, losses = [], [], []
    for sample, label in enumerate(labels):
        for depth in (1, 2, 3):
            mean = predictions[[1, 2, 0][:depth], sample].mean(0)
            if mean.max() >= 0.7:
                break
        asked.append(depth)
        paid.append(sum([2.0, 4.0, 1.0][:depth]) / 7)
        losses.append(-np.log(mean[label]))
    assert set(asked) == {1, 2, 3}
    assert effect.asked == pytest.approx(np.mean(asked))
    assert effect.saved == pytest.approx(1 - np.mean(paid))
    assert effect.loss == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize(("threshold", "asked"), [(0.75, 1.0), (0.7500001, 2.0)])
def test_a_mean_that_just_reaches_the_threshold_is_sure(threshold, asked):
    predictions, labels = np.array([[[0.75, 0.25]], [[0.5, 0.5]]]), np.array([0])
    effect = judge_cascade(Cascade(("a", "b"), threshold), ["a", "b"], predictions, labels, [1.0, 3.0])
    assert (effect.asked, effect.saved) == (asked, 0.75 if asked == 1 else 0.0)
    bundle = fake.bundle(members=2, lanes=1)
    images = fake.images(1)
    first = float(fake.each(bundle, images)[0].max())
    with Engine(bundle, load=fake.load, cascade=Cascade(bundle.ensemble.members, first)) as engine:
        assert engine.submit(images).result(timeout=30).members_evaluated.tolist() == [1]


def test_members_run_in_the_order_of_their_gain_per_cost():
    # a gains most and costs twenty times as much; c gains almost nothing and costs almost nothing
    labels = np.zeros(50, np.int64)
    truth = [0.9, 0.85, 0.4]
    predictions = np.stack([np.tile([t, 1 - t], (50, 1)) for t in truth])
    assert plan_cascade(["a", "b", "c"], predictions, labels, [20.0, 1.0, 1.0]).order == ("b", "a", "c")
    assert plan_cascade(["a", "b", "c"], predictions, labels, [1.0, 1.0, 1.0]).order == ("a", "b", "c")


def test_without_tolerance_to_spare_no_sample_stops_early():
    predictions, labels = validation()
    cascade = plan_cascade(["a", "b", "c"], predictions, labels, [1.0, 1.0, 1.0], tolerance=-1.0)
    assert cascade.effects["valid"].saved == 0
    assert cascade.threshold > 1


def test_the_member_with_the_most_benefit_per_cost_comes_first():
    predictions, labels = validation()
    assert plan_cascade(["a", "b", "c"], predictions, labels, [1.0, 1.0, 1.0]).order[0] == "c"
    assert plan_cascade(["a", "b", "c"], predictions, labels, [1.0, 1.0, 50.0]).order[0] != "c"


def test_shapes_that_disagree_are_refused():
    predictions, labels = validation()
    with pytest.raises(EngineError, match=", expected "):
        plan_cascade(["a", "b"], predictions, labels, [1.0, 1.0])


def test_sure_samples_stop_and_the_others_go_on(isolation):
    bundle = fake.bundle(lanes=2, batch_size=5)
    ids = bundle.ensemble.members
    cascade = Cascade((ids[1], ids[2], ids[0]), 0.55)
    all_depths: list[int] = []
    with Engine(bundle, isolation=isolation, load=fake.load, cascade=cascade, capacity=16) as engine:
        for samples in (1, 7, 40):
            images = fake.images(samples, seed=samples)
            answers, depths = stepwise(bundle, images, cascade)
            all_depths += depths.tolist()
            answer = engine.submit(images).result(timeout=30)
            np.testing.assert_allclose(answer.predictions, answers, atol=1e-5)
            assert answer.members_evaluated is not None
            assert answer.members_evaluated.tolist() == depths.tolist()
        assert set(all_depths) == {1, 2, 3}
        work = engine.stats().members
        assert [work[m].samples for m in cascade.order] == [sum(d > k for d in all_depths) for k in range(3)]
        whole = fake.each(bundle, images).mean(0)
        for answer in (
            engine.submit(images, cascade=False).result(timeout=30),
            engine.submit(images, spread=True).result(timeout=30),
            engine.submit(images, disagreement=True).result(timeout=30),
            engine.submit(images, ids).result(timeout=30),
        ):
            np.testing.assert_allclose(answer.predictions, whole, atol=1e-6)
            assert answer.members_evaluated is None


def test_a_bundles_cascade_is_used_unless_disabled():
    bundle = fake.bundle(lanes=1)
    bundle = dataclasses.replace(bundle, cascade=Cascade(bundle.ensemble.members, 0.0))
    images = fake.images(5)
    with Engine(bundle, load=fake.load) as engine:
        np.testing.assert_allclose(engine.predict(images), fake.each(bundle, images)[0], atol=1e-6)
        result = bench(bundle, seconds=0.05, batch=4, engine=engine)
        assert result.asked == pytest.approx(1.0, abs=0.01)
    with Engine(bundle, load=fake.load, cascade=False) as engine:
        np.testing.assert_allclose(engine.predict(images), fake.each(bundle, images).mean(0), atol=1e-6)


def test_a_cascade_goes_on_without_a_member_that_dies_if_it_may():
    bundle = fake.bundle([fake.member(0, bad=fake.RAISE), fake.member(1), fake.member(2)], lanes=1)
    cascade = Cascade(bundle.ensemble.members, 2.0)
    images = fake.images(3)
    images[0].flat[0] = fake.RAISE
    patience = RestartPolicy(back_off=0.01)
    with Engine(bundle, load=fake.load, cascade=cascade, min_members=1, patience=patience) as engine:
        answer = engine.submit(images).result(timeout=30)
    assert answer.partial
    assert answer.members == bundle.ensemble.members[1:]
    np.testing.assert_allclose(answer.predictions, fake.each(bundle, images)[1:].mean(0), atol=1e-5)


def test_a_late_cascade_answers_with_the_members_that_finished():
    bundle = fake.bundle([fake.member(0), fake.member(1, delay=0.2)], lanes=2, spread_out=True)
    images = fake.images(2)
    with Engine(bundle, load=fake.load, cascade=Cascade(bundle.ensemble.members, 2.0)) as engine:
        answer = engine.submit(images, cascade=True, deadline=0.15, partial=True).result(timeout=30)
    assert answer.partial
    np.testing.assert_allclose(answer.predictions, fake.each(bundle, images)[0], atol=1e-5)


def test_what_a_cascade_cannot_give_is_refused():
    bundle = fake.bundle()
    with Engine(bundle, load=fake.load) as engine, pytest.raises(EngineError, match="no cascade"):
        engine.submit(fake.images(1), cascade=True)
    cascade = Cascade(bundle.ensemble.members, 0.5)
    for option in ("spread", "each", "disagreement"):
        with Engine(bundle, load=fake.load, cascade=cascade) as engine, pytest.raises(EngineError, match="mean only"):
            engine.submit(fake.images(1), cascade=True, **{option: True})
