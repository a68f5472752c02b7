"""One combiner: what selection scores is what the engine returns and what the exported file computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ripieno.backends.merge_onnx import merge_onnx
from ripieno.engine.combiner import EnsembleCombiner
from ripieno.engine.model_runner import ModelRunner
from ripieno.engine.plan_cache import PlanCache
from ripieno.engine.request import Request
from ripieno.engine.ring import RequestSlice
from ripieno.engine.ring_memory import Memory
from ripieno.engine.worker_config import units_of, worker_config
from ripieno.errors import SelectionError
from ripieno.selection import Choice
from ripieno.tasks.calibration import combine_calibrated
from ripieno.tasks.combiners import combine
from ripieno.tasks.metrics import cross_entropy
from ripieno.tasks.registry import TASKS
from ripieno.types import (
    Allocation,
    Bundle,
    Combiner,
    Device,
    Ensemble,
    Float32s,
    Input,
    Member,
    Placement,
    classification,
)

# three members, one sample, three classes
MEMBERS = np.array([[[0.6, 0.4, 0.0]], [[0.1, 0.8, 0.1]], [[0.6, 0.1, 0.3]]])


def cube(members: int = 4, samples: int = 6, classes: int = 3, seed: int = 0) -> Float32s:
    raw = np.random.default_rng(seed).random((members, samples, classes), np.float32)
    return raw / raw.sum(2, keepdims=True)


def test_the_mean_is_the_mean_whatever_the_weights() -> None:
    assert combine(MEMBERS)[0] == pytest.approx([1.3 / 3, 1.3 / 3, 0.4 / 3])
    assert combine(MEMBERS, [1, 2, 3], "mean").tobytes() == combine(MEMBERS).tobytes()
    np.testing.assert_allclose(combine(cube()), cube().mean(0), rtol=1e-6)


def test_weights_are_shares() -> None:
    assert combine(MEMBERS, [2.0, 0.0, 2.0], "weighted")[0] == pytest.approx([0.6, 0.25, 0.15])
    weights = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    np.testing.assert_allclose(combine(cube(), weights, "weighted"), np.average(cube(), 0, weights), rtol=1e-6)


def test_a_vote_counts_likeliest_classes_and_heeds_weights() -> None:
    assert combine(MEMBERS, None, "vote")[0] == pytest.approx([2 / 3, 1 / 3, 0])
    assert combine(MEMBERS, [1.0, 8.0, 1.0], "vote")[0] == pytest.approx([0.2, 0.8, 0])


def test_a_median_is_per_class_and_scaled_to_sum_to_one() -> None:
    assert combine(MEMBERS, None, "median")[0] == pytest.approx(np.array([0.6, 0.4, 0.1]) / 1.1)
    middle = np.median(cube(), axis=0)
    np.testing.assert_allclose(combine(cube(), None, "median"), middle / middle.sum(1, keepdims=True), rtol=1e-5)


def test_a_median_that_is_zero_everywhere_is_the_mean() -> None:
    # no class has a majority, and the means differ between classes
    predictions = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]][:, None]
    np.testing.assert_allclose(combine(predictions, None, "median"), [[0.4, 0.2, 0.2, 0.2]], rtol=1e-6)


@pytest.mark.parametrize("combiner", ["weighted", "vote"])
@pytest.mark.parametrize("weights", [[], [1.0], [1.0, 1.0, -1.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
def test_weights_that_cannot_be_are_refused(weights: list[float], combiner: Combiner) -> None:
    with pytest.raises(SelectionError, match="weights"):
        combine(MEMBERS, weights, combiner)


def test_an_unknown_combiner_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SelectionError, match="expected mean, weighted, vote or median"):
        combine(MEMBERS, None, "mode")  # type: ignore[arg-type]


@pytest.mark.parametrize(("members", "samples", "classes"), [(4, 1, 100), (12, 1, 2), (40, 3, 10), (12, 16, 100)])
def test_few_samples_get_the_same_bytes_as_among_many(members: int, samples: int, classes: int) -> None:
    many = cube(members, 4096, classes)
    weights = np.random.default_rng(1).dirichlet(np.ones(members))
    for combiner in ("mean", "weighted"):
        few = combine(many[:, 7 : 7 + samples], weights, combiner)
        assert few.tobytes() == combine(many, weights, combiner)[7 : 7 + samples].tobytes()


@pytest.mark.parametrize("combiner", TASKS["classification"].combiners)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), members=st.integers(1, 7), classes=st.integers(2, 6))
def test_every_combiner_returns_probabilities_and_leaves_its_input_alone(
    combiner: Combiner, seed: int, members: int, classes: int
) -> None:
    predictions = cube(members, 5, classes, seed)
    before = predictions.copy()
    answer = combine(predictions, np.full(members, 1 / members), combiner)
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer.sum(1), 1, rtol=1e-5)
    assert (predictions == before).all()


class Table:
    """A backend that predicts `rows`."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows = rows

    def infer(self, images: NDArray[Any]) -> NDArray[Any]:
        return self.rows[: len(images)]

    def close(self) -> None:
        pass


def ensemble_of(
    weights: NDArray[Any], combiner: Combiner, temperatures: Sequence[float] = (), temperature: float = 1.0
) -> Ensemble:
    names = tuple(f"m{i}" for i in range(len(weights)))
    given = (names, tuple(weights.tolist()), "smobf", {}, {}, {}, combiner)
    return Ensemble("e", *given, temperatures=tuple(temperatures), temperature=temperature)


def of_engine(predictions: NDArray[Any], ensemble: Ensemble) -> Float32s:
    """Return the engine's answer to a request, with members that predict `predictions`."""
    members, samples, classes = predictions.shape
    input, task = Input((1, 1, 1)), classification(tuple(map(str, range(classes))))
    made = tuple(Member(m, 0, 1, "onnx", {}, input, task, {}, 0, 0.0) for m in ensemble.members)
    placements = tuple(Placement(m, "cpu:0", samples) for m in ensemble.members)
    allocation = Allocation("e", "e", (Device("cpu:0", "cpu", 1 << 30),), placements)
    bundle = Bundle(ensemble, allocation, made, input, task, "onnx", Path("nowhere"))
    memory = Memory(samples, members, (classes,), input)
    tables = dict(zip(ensemble.members, predictions.astype(np.float32), strict=True))
    config = dataclasses.replace(worker_config(bundle, placements, [placements]), cores=())
    runner = ModelRunner(lambda _backend, _path, member, *_: Table(tables[member.id]), config, memory)
    for unit in range(members):
        for member, predictions_of_member in runner.run(unit, [(0, samples)])[0]:
            memory.scatter(member, [(0, samples)], predictions_of_member)
    request = Request(samples, PlanCache(bundle, None, units_of(bundle)).find(None, False, False, False, None), 0)
    whole = RequestSlice(request, 0, 0, samples, 0.0, [], 0, frozenset())
    assert EnsembleCombiner(ensemble, memory, TASKS["classification"]).finish([whole]) == []
    return request.parts[0].predictions


def of_file(folder: Path, predictions: NDArray[Any], ensemble: Ensemble) -> Float32s:
    """Return the answer of the merged file of members that predict row i of `predictions` for the i-th unit vector."""
    _, samples, classes = predictions.shape
    paths = {}
    for number, table in enumerate(predictions.astype(np.float32)):
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Flatten", ["images"], ["flat"], axis=1),
                onnx.helper.make_node("MatMul", ["flat", "table"], ["probabilities"]),
            ],
            "table",
            [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", samples, 1, 1])],
            [onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["batch", classes])],
            [onnx.numpy_helper.from_array(table, "table")],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
        model.ir_version = 8
        paths[f"m{number}"] = folder / f"{number}.onnx"
        onnx.save(model, str(paths[f"m{number}"]))
    task = classification(tuple(map(str, range(classes))))
    content = merge_onnx(
        paths,
        ensemble.weights,
        ensemble.combiner,
        Input((samples, 1, 1), "float32"),
        task,
        {},
        ensemble.temperatures,
        ensemble.temperature,
    )
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = np.eye(samples, dtype=np.float32)[:, :, None, None]
    return np.asarray(session.run(["probabilities"], {"images": images})[0])


@pytest.mark.parametrize("combiner", TASKS["classification"].combiners)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_scored_is_what_is_served_and_exported(
    combiner: Combiner, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    members, samples, classes = data.draw(st.tuples(*[st.integers(1, 6)] * 2, st.integers(2, 5)))
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    predictions = rng.dirichlet(np.full(classes, 0.3), (members, samples))
    hard = rng.random((members, samples)) < 0.4  # certain of one class
    predictions[hard] = np.eye(classes)[predictions[hard].argmax(axis=-1)]
    predictions = predictions.astype(dtype)
    whole = data.draw(st.booleans())  # weights in the ratio of small numbers, with ties, or any
    weights = rng.integers(1, 4, members) / 10 if whole else rng.dirichlet(np.ones(members))
    weights = weights / weights.sum()
    if members > 1 and data.draw(st.booleans()):
        weights[0], weights[1:] = 0.0, weights[1:] / weights[1:].sum()

    ensemble = ensemble_of(weights, combiner)
    scored = combine_calibrated(predictions, ensemble)
    assert scored.tobytes() == combine(predictions, weights, combiner).tobytes()
    assert scored.tobytes() == of_engine(predictions, ensemble).tobytes()
    labels = rng.integers(0, classes, samples)
    for answer in (
        of_engine(predictions, ensemble),
        of_file(tmp_path_factory.mktemp("file"), predictions, ensemble),
    ):
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, scored, atol=1e-6)
        best = np.sort(scored, axis=1)
        clear = best[:, -1] - best[:, -2] > 1e-6
        assert (answer.argmax(axis=1) == scored.argmax(axis=1))[clear].all()
        if combiner == "vote":  # tied votes are tied everywhere
            assert (answer.argmax(axis=1) == scored.argmax(axis=1)).all()
        true = scored[np.arange(samples), labels] > 1e-3
        if true.any():
            loss = cross_entropy(scored[true], labels[true])
            assert cross_entropy(answer[true], labels[true]) == pytest.approx(loss, abs=1e-3)


@pytest.mark.parametrize("combiner", TASKS["classification"].combiners)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_scored_with_temperatures_is_what_is_served_and_exported(
    combiner: Combiner, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    members, samples, classes = data.draw(st.tuples(*[st.integers(1, 6)] * 2, st.integers(2, 5)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    predictions = rng.dirichlet(np.full(classes, 0.3), (members, samples)).astype(np.float32)
    hard = rng.random((members, samples)) < 0.2  # certain of one class
    predictions[hard] = np.eye(classes, dtype=np.float32)[predictions[hard].argmax(axis=-1)]
    any_temperature = st.sampled_from([1.0, 0.3, 0.9, 1.04, 3.0]) | st.floats(0.2, 8.0)
    temperatures = data.draw(st.lists(any_temperature, min_size=members, max_size=members) | st.just([]))
    temperature = data.draw(any_temperature)
    weights = rng.dirichlet(np.ones(members))
    ensemble = ensemble_of(weights, combiner, temperatures, temperature)

    scored = combine_calibrated(predictions, ensemble)
    calibration = {"temperatures": ensemble.temperatures, "temperature": temperature}
    choice = Choice(tuple(range(members)), ensemble.weights, 0.0, 0.0, combiner=combiner, **calibration)

    def by_definition(probabilities: NDArray[Any], temperature: float) -> NDArray[Any]:
        powers = np.maximum(probabilities.astype(np.float64), 1e-15) ** (1 / temperature)
        return probabilities if temperature == 1.0 else powers / powers.sum(axis=-1, keepdims=True)

    own = temperatures or [1.0] * members
    combined = combine(np.stack([by_definition(*p) for p in zip(predictions, own, strict=True)]), weights, combiner)
    for answer in (
        choice.combine(predictions),
        of_engine(predictions, ensemble),
        of_file(tmp_path_factory.mktemp("file"), predictions, ensemble),
        by_definition(combined, temperature),
    ):
        np.testing.assert_allclose(answer, scored, atol=1e-6)


def test_equal_votes_are_equal_in_whatever_order_they_come() -> None:
    """The lowest class must win although 0.1 + 0.2 is not 0.3 in floating point."""
    votes = np.eye(2, dtype=np.float32)[[1, 1, 0]][:, None]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        shares = combine(votes[order], np.array([0.1, 0.2, 0.3])[order], "vote")
        assert shares[0, 0] == shares[0, 1]
        assert shares.argmax() == 0


def test_a_tie_of_weighted_means_goes_to_the_lowest_class() -> None:
    # 3/7 of certain members against 1/7 and 2/7: mathematically equal, but different if the sevenths are rounded first
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts = rng.integers(1, 4, rng.integers(2, 8))
        sure = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (len(counts), 5))]
        right = np.tensordot(counts, sure, 1).argmax(1)
        assert (combine(sure, counts / counts.sum(), "weighted").argmax(1) == right).all()
