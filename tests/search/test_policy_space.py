"""Spaces of policies of augmentation, and spaces whose policy is fixed."""

from __future__ import annotations

from ripieno.data.augmentation_policy import LearntPolicy, PolicyStep, RandomPolicy, policy_of
from ripieno.search.augmentation_space import leave_out
from ripieno.search.built_in_spaces import find_space, is_built_in_space
from ripieno.search.policy_space import fix_policy, has_policy, policy_configuration, policy_space, policy_words
from ripieno.search.space import Categorical, space_from_plain, space_to_plain

POLICY = LearntPolicy("series", (PolicyStep("crop", 0.5, 0.25), PolicyStep("jitter", 1.0, 0.1)))


def test_a_trial_of_the_space_is_a_policy_of_its_steps() -> None:
    space = policy_space("lite", {"batch_size": 32}, ("crop", "jitter"), steps=2)
    assert space.ranges["operation_2"] == Categorical(("crop", "jitter"))
    drawn = {"batch_size": 32}
    for number, values in ((1, ("crop", 0.499, 0.2512)), (2, ("jitter", 1.0, 0.1))):
        drawn |= {f"{n}_{number}": v for n, v in zip(("operation", "probability", "magnitude"), values, strict=True)}
    assert drawn.keys() == space.ranges.keys() | space.fixed.keys()
    configuration = policy_configuration(drawn, "series")
    assert configuration == {"batch_size": 32, "policy": POLICY.text}
    assert policy_of(configuration, "series") == POLICY


def test_a_fixed_policy_takes_the_place_of_other_augmentation_only() -> None:
    space = find_space("series")
    fixed = fix_policy(space, POLICY)
    assert space.ranges.keys() - fixed.ranges.keys() >= {"jitter", "scaling", "window_warp", "crop"}
    assert fixed.ranges.keys() >= {"learning_rate", "network", "dropout"}
    assert fixed.fixed == {**space.fixed, "policy": POLICY.text}
    assert is_built_in_space(fixed)
    assert fix_policy(fixed, POLICY) == fixed
    assert space_from_plain(space_to_plain(fixed)) == fixed
    images = fix_policy(find_space("timm-small"), LearntPolicy("image", (PolicyStep("rotate", 0.5, 0.5),)))
    assert {"flip", "min_crop", "mixup"} <= images.ranges.keys()
    assert "colour" not in images.ranges
    assert has_policy(fixed, POLICY)
    assert has_policy(leave_out(fixed, ["crop"]), POLICY)
    assert not has_policy(space, POLICY)
    assert not has_policy(fixed, LearntPolicy("series", POLICY.steps[:1]))
    drawn = fix_policy(space, RandomPolicy("series", 2, 0.5))
    assert has_policy(leave_out(drawn, ["crop"]), RandomPolicy("series", 2, 0.5))
    assert not has_policy(drawn, RandomPolicy("series", 1, 0.5))
    assert policy_words(fixed) == "the policy of augmentation 'crop 0.5 0.25; jitter 1.0 0.1'"
    assert policy_words(space) == "no policy of augmentation"
