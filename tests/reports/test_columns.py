"""Reports of tables: importance of columns, losses by their values, and the hardest rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ripieno.data import write_dataset
from ripieno.library import Library
from ripieno.reports import report
from ripieno.reports.column_importance import importances
from ripieno.reports.column_slices import slices
from ripieno.reports.row_values import value_text
from ripieno.tasks.registry import kind_of
from ripieno.types import BatchProfile, Column, Dataset, Input, Member, Profile, Task
from tests.reports.made_run import KIND

COLUMNS = (
    Column("noise"),
    Column("<b>job</b>", "category", ("cook", "nurse")),
    Column("since", "date", parts=("year", "month")),
    Column("age"),
)
TASK = Task("regression", (1,), ("pay",), "rmse")


def table(rows: int) -> NDArray[np.float32]:
    """Rows of `COLUMNS`: noise with missing values, two categories and an unseen one, dates, and age."""
    draw = np.random.default_rng(0)
    noise = np.where(draw.random(rows) < 0.2, np.nan, draw.normal(size=rows))
    job = draw.choice([0, 1, -1], rows, p=[0.5, 0.4, 0.1])
    year, month = draw.integers(2000, 2010, rows), draw.integers(1, 4, rows)
    return np.stack([noise, job, year, month, draw.uniform(20, 60, rows)], axis=1).astype(np.float32)


def write_network(path: Path, factor: float) -> None:
    """Write a network of rows that predicts `factor` times the age."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["images", "place"], ["age"], axis=1),
            helper.make_node("Mul", ["age", "f"], ["values"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array([4]), "place"), numpy_helper.from_array(np.float32(factor), "f")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def make_run(path: Path, runnable: bool = True) -> Library:
    """Make a run of rows whose pay is twice the age, but far from it for nurses."""
    inputs = table(160)
    targets = (2 * inputs[:, [4]] + 30 * (inputs[:, [1]] == 1)).astype(np.float32)
    split = np.repeat(np.arange(3, dtype=np.uint8), (40, 40, 80))
    moments = (0.0,) * 5, (1.0,) * 5
    dataset = Dataset("pay", inputs, targets, split, TASK, *moments, kind="table", columns=COLUMNS)
    write_dataset(dataset, path / "dataset")
    library, kind = Library(path), kind_of(TASK)
    for number, factor in enumerate((1.8, 2.1)):
        found = (factor * inputs[:, [4]]).astype(np.float32)
        rows = dataset.rows("valid")
        losses = kind.losses(found[rows], targets[rows], TASK)
        shape = Input((5,), "float32", columns=COLUMNS)
        member = Member(f"{number:05d}-e001", number, 1, "mlp", {}, shape, TASK, losses, 10, 2.0)
        library.add(member, found[rows], targets[rows])
        rows = dataset.rows("test")
        library.write_predictions(member.id, "test", found[rows], targets[rows])
        if runnable:
            write_network(library.onnx_path(member.id), factor)
    library.write_profiles(
        KIND, [Profile(m.id, KIND, "onnx", (BatchProfile(8, 0.1, 0.02, 1 << 20),)) for m in library.members()]
    )
    return library


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_page_has_importances_losses_by_value_and_the_hardest_rows(tmp_path: Path) -> None:
    page = report(make_run(tmp_path / "run")).read_text()
    assert "<b>job</b>" not in page
    folder = tmp_path / "run" / "report"
    columns = read_csv(folder / "columns.csv")
    assert columns[0]["column"] == "age"
    assert float(columns[0]["increase_of_loss"]) > 100
    assert all(float(row["increase_of_loss"]) == pytest.approx(0, abs=1e-3) for row in columns[1:])
    worst = page.partition("Values with the highest loss")[2].partition("</table>")[0]
    assert "<td>nurse</td>" in worst.partition("<tbody>")[2].partition("</tr>")[0], "the first"
    assert {"columns", "slices-age", "slices-noise"} <= {p.stem for p in folder.glob("*.svg")}
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    sample = data["points"][-1]["hardest"][0]
    values = dict(data["drawings"][sample["drawing"]]["values"])
    assert next(iter(values)) == "age"
    assert values["<b>job</b>"] == "nurse"
    assert "Hardest rows" in page


@pytest.mark.parametrize("broken", [False, True])
def test_without_models_the_importance_is_left_out(tmp_path: Path, broken: bool) -> None:
    library = make_run(tmp_path / "run", runnable=broken)
    for name in library.ids() if broken else ():
        library.onnx_path(name).write_bytes(b"broken")
    page = report(library).read_text()
    assert "so the importance of columns is not measured" in page
    assert "<td>nurse</td>" in page


def test_the_importance_is_the_gain_of_the_loss_where_values_are_shuffled() -> None:
    columns = (Column("a"), Column("d", "date", parts=("year", "month")), Column("b"))
    inputs = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    targets = inputs[:, 1] + inputs[:, 2] + 0.1 * inputs[:, 3]

    def loss(given: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray((given[:, 1] + given[:, 2] + 0.1 * given[:, 3] - targets[rows]) ** 2, np.float64)

    found = importances(columns, inputs, loss, lambda *_: None)
    assert (found.samples, found.left_out) == (500, 0)
    assert found.loss == pytest.approx(0, abs=1e-9)
    assert [one.name for one in found.columns] == ["d", "b", "a"]
    # both parts are shuffled together: twice the sum of their variances
    assert found.columns[0].increase == pytest.approx(4, rel=0.2)
    assert found.columns[1].increase == pytest.approx(0.02, rel=0.2)
    assert found.columns[2].increase == 0


def test_many_columns_bound_the_time() -> None:
    predicted = 0

    def loss(given: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        nonlocal predicted
        predicted += len(rows)
        return np.zeros(len(rows))

    columns = tuple(Column(f"c{number}") for number in range(1500))
    found = importances(columns, np.zeros((5000, 1500), np.float32), loss, lambda *_: None)
    assert predicted <= 151_000
    assert found.samples == 50
    assert found.left_out == 500


def test_slices_hold_the_samples_of_each_value() -> None:
    inputs = table(200)
    losses = np.where(inputs[:, 1] == -1, 5.0, 1.0) + np.random.default_rng(1).normal(0, 0.1, 200)
    found = slices(COLUMNS, inputs, losses)
    of_jobs = {one.values: one for one in found if one.column == "<b>job</b>"}
    assert set(of_jobs) == {"cook", "nurse", "unseen categories"}
    assert of_jobs["unseen categories"].loss == pytest.approx(5, abs=0.1)
    assert of_jobs["unseen categories"].excess > 10 > 0 > of_jobs["cook"].excess
    assert of_jobs["cook"].samples == (inputs[:, 1] == 0).sum()
    of_noise = [one for one in found if one.column == "noise"]
    assert [one.values for one in of_noise][-1] == "missing"
    assert sum(one.samples for one in of_noise) == 200
    months = [one.values for one in found if one.column == "since" and one.values.startswith("month")]
    assert months == ["month 1", "month 2", "month 3"]
    years = [one for one in found if one.values.startswith("year")]
    assert sum(one.samples for one in years) == 200
    assert years[0].values.startswith("year 2000 to ")
    assert years[-1].values.endswith("2009")
    first, second = (int(one.values.split()[at]) for one, at in ((years[0], -1), (years[1], 1)))
    assert second == first + 1, "each value is in one slice"


def test_values_are_shown_as_in_the_table() -> None:
    row = np.array([np.nan, 1, 2004, 3, 41.5], np.float32)
    assert value_text(COLUMNS[0], row[:1]) == "missing"
    assert value_text(COLUMNS[0], np.array([3.0])) == "3"
    assert value_text(COLUMNS[1], row[1:2]) == "nurse"
    assert value_text(COLUMNS[1], np.array([-1.0])) == "unseen"
    assert value_text(COLUMNS[2], row[2:4]) == "year 2004, month 3"
    assert value_text(COLUMNS[3], row[4:]) == "41.5"
