"""The fast computation agrees with the plain formula, and its lower bounds are valid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ripieno.selection.cross_entropy import CrossEntropy
from ripieno.selection.tree import Tree
from ripieno.tasks.metrics import cross_entropy

probability = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1), st.floats(-20, 0).map(lambda x: float(10.0**x)))
shapes = st.tuples(st.integers(2, 7), st.integers(1, 40))
matrices = shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=probability))


@given(matrices, st.data())
@settings(max_examples=100, deadline=None)
def test_losses_are_those_of_the_plain_formula(truth: np.ndarray, data: st.DataObject) -> None:
    objective = CrossEntropy(truth)
    members = tuple(data.draw(st.lists(st.integers(0, len(truth) - 1), max_size=5)))
    losses = objective.losses(objective.state(members), np.arange(len(truth)))
    for candidate, loss in enumerate(losses):
        plain = cross_entropy(truth[[*members, candidate]].mean(axis=0))
        assert loss == pytest.approx(plain, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("members", [1, 2, 3])
def test_the_mean_is_clipped_not_each_member(members: int) -> None:
    # the sum is above 1e-15; its mean with a candidate of probability 0 is not
    truth = np.full((4, 20), 0.5)
    truth[:, 0] = [1.5e-15, 0.0, 0.0, 0.0]
    objective = CrossEntropy(truth)
    (loss,) = objective.losses(objective.state(tuple(range(members))), np.array([members]))
    assert loss == pytest.approx(cross_entropy(truth[: members + 1].mean(axis=0)), rel=1e-12)


@given(matrices, st.data())
@settings(max_examples=100, deadline=None)
def test_a_lower_bound_is_never_above_the_loss(truth: np.ndarray, data: st.DataObject) -> None:
    objective = CrossEntropy(truth)
    members = tuple(data.draw(st.lists(st.integers(0, len(truth) - 1), min_size=1, max_size=5)))
    state = objective.state(members)
    loss = float(objective.losses(objective.state(members[:-1]), np.array(members[-1:]))[0])
    assert (objective.lower_bounds(state, loss, None) <= objective.losses(state, np.arange(len(truth)))).all()


def test_the_loss_of_a_candidate_does_not_depend_on_its_company() -> None:
    truth = np.random.default_rng(0).beta(2, 1, (9, 123))
    objective = CrossEntropy(truth)
    state = objective.state((3, 4))
    together = objective.losses(state, np.arange(9))
    assert [objective.losses(state, np.array([c]))[0] for c in range(9)] == together.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_a_search_with_bounds_chooses_the_members_of_one_without(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.beta(rng.uniform(0.2, 4, (60, 1)), 1, (60, 200)).astype(rng.choice([np.float16, np.float32]))
    truth[7] = truth[3]  # a tie
    trees = [Tree(CrossEntropy(truth), bounded) for bounded in (True, False)]
    paths = []
    for tree in trees:
        node = tree.root
        for _ in range(15):
            member = tree.step(node, np.arange(60), 1.0, np.zeros(60), np.inf)
            assert member is not None
            node = tree.child(node, member)
        paths.append((node.members, node.loss))
    assert paths[0] == paths[1]
    assert trees[0].evaluations < trees[1].evaluations / 2


def test_a_tie_goes_to_the_lowest_index() -> None:
    truth = np.full((30, 5), 0.5)
    tree = Tree(CrossEntropy(truth))
    node = tree.at((12,))
    assert tree.step(node, np.arange(30), 1.0, np.zeros(30), np.inf) == 0


class Table:
    """An objective with losses and lower bounds from a table."""

    submodular = False

    def __init__(self, losses: list[float], bounds: list[float]) -> None:
        self.size = len(losses)
        self._losses, self._bounds = np.array(losses), np.array(bounds)

    def state(self, members: tuple[int, ...]) -> tuple[int, ...]:
        return members

    def extend(self, state: tuple[int, ...], member: int) -> tuple[int, ...]:
        return (*state, member)

    def losses(self, state: tuple[int, ...], candidates: np.ndarray) -> np.ndarray:
        return self._losses[candidates]

    def lower_bounds(self, state: tuple[int, ...], loss: float, above: object, /) -> np.ndarray:
        return self._bounds

    def nbytes(self) -> int:
        return 1


def test_a_tie_goes_to_the_lowest_index_also_when_it_is_evaluated_later() -> None:
    # the first sixteen evaluated have the lowest bounds; member 0, with a bound equal to its loss, follows
    tree = Tree(Table([1.0] + [2.0] * 16 + [1.0], [1.0] + [0.1] * 16 + [0.0]))
    assert tree.step(tree.at((1,)), np.arange(18), 1.0, np.zeros(18), np.inf) == 0


def test_the_mean_is_clipped_not_the_members() -> None:
    truth = np.array([[5e-16], [0.0], [3e-15]])
    objective = CrossEntropy(truth)
    losses = objective.losses(objective.state((0,)), np.arange(3))
    assert losses == pytest.approx([15 * np.log(10), 15 * np.log(10), -np.log(1.75e-15)], rel=1e-12)


def test_nothing_below_the_ceiling_is_no_step() -> None:
    truth = np.array([[0.9, 0.9], [0.1, 0.1]])
    tree = Tree(CrossEntropy(truth))
    node = tree.at((0,))
    assert tree.step(node, np.array([1]), 1.0, np.zeros(1), node.loss) is None


def test_a_state_that_was_dropped_is_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.random.default_rng(0).beta(2, 1, (9, 50))
    roomy = Tree(CrossEntropy(truth))
    monkeypatch.setattr("ripieno.selection.tree.STATE_BYTES", 1)
    narrow = Tree(CrossEntropy(truth))
    for members in [(0, 1, 2, 3), (4, 5, 6), (0, 1, 2, 8)]:
        assert roomy.at(members).loss == narrow.at(members).loss
