"""Import of prediction matrices as members, from every kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.errors import LibraryError, RipienoError
from ripieno.library import Library, import_predictions
from ripieno.library.table_io import read_table
from ripieno.selection import select_members

LABELS = np.array([0, 1, 2, 1])


def answers(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).dirichlet([1, 1, 1], 4)


def write_csv(path: Path, values: NDArray[np.float64], labels: bool = False) -> None:
    lines = ["cat,dog,eel" + (",label" if labels else "")]
    names = ["cat", "dog", "eel"]
    for row, label in zip(values, LABELS, strict=True):
        lines.append(",".join(repr(float(v)) for v in row) + (f",{names[label]}" if labels else ""))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "run")


def test_a_mapping_of_arrays_becomes_members_with_losses_and_costs(library: Library) -> None:
    costs = {"ann": {"seconds": 2.0, "bytes": 10}, "bob": {"seconds": 3, "bytes": 20}}
    members = import_predictions(library, {"ann": answers(0), "bob": answers(1)}, LABELS, costs)
    assert [m.id for m in members] == library.ids() == ["ann", "bob"]
    assert library.member("bob").costs == {"seconds": 3.0, "bytes": 20.0}
    assert library.member("ann").classes == ("0", "1", "2")
    truth = answers(0)[np.arange(4), LABELS]
    assert library.member("ann").losses["valid_cross_entropy"] == pytest.approx(-np.log(truth).mean())
    assert library.predictions("ann").dtype == np.float32


def test_a_cube_in_npy_becomes_one_member_a_model(library: Library, tmp_path: Path) -> None:
    np.save(tmp_path / "zoo.npy", np.stack([answers(0), answers(1)]))
    np.save(tmp_path / "labels.npy", LABELS)
    import_predictions(library, tmp_path / "zoo.npy", tmp_path / "labels.npy", half=True)
    assert library.ids() == ["zoo-000", "zoo-001"]
    assert library.predictions("zoo-000").dtype == np.float16


@pytest.mark.parametrize("name", ["labels", "targets"])
def test_targets_have_two_names_in_files_and_arguments(library: Library, tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "one.npz", ann=answers(0), **{name: LABELS})
    (tmp_path / "zoo").mkdir()
    np.save(tmp_path / "zoo" / "bob.npy", answers(1))
    np.save(tmp_path / "zoo" / f"{name}.npy", LABELS)
    import_predictions(library, tmp_path / "one.npz")
    import_predictions(library, tmp_path / "zoo")
    import_predictions(library, {"cid": answers(2)}, **{name: LABELS})
    assert library.ids() == ["ann", "bob", "cid"]
    assert library.targets().tolist() == LABELS.tolist()


def test_targets_and_labels_are_not_taken_together(library: Library, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="two names of one option: pass targets alone"):
        import_predictions(library, {"ann": answers(0)}, LABELS, labels=LABELS)
    np.savez(tmp_path / "one.npz", ann=answers(0), labels=LABELS, targets=LABELS)
    with pytest.raises(LibraryError, match="holds targets and labels; leave one out"):
        import_predictions(library, tmp_path / "one.npz")
    assert not library.path.exists()


def test_an_npz_brings_names_labels_classes_and_costs(library: Library, tmp_path: Path) -> None:
    cube = np.stack([answers(0), answers(1)])
    beside = {"names": np.array(["ann", "bob"]), "labels": LABELS, "classes": np.array(["cat", "dog", "eel"])}
    np.savez(tmp_path / "zoo.npz", predictions=cube, costs=np.array([1.0, 2.0]), **beside)
    import_predictions(library, tmp_path / "zoo.npz")
    assert library.ids() == ["ann", "bob"]
    assert library.member("bob").costs == {"cost": 2.0}
    assert library.member("bob").classes == ("cat", "dog", "eel")


def test_a_csv_names_classes_and_labels(library: Library, tmp_path: Path) -> None:
    write_csv(tmp_path / "ann.csv", answers(0), labels=True)
    import_predictions(library, tmp_path / "ann.csv")
    assert library.member("ann").classes == ("cat", "dog", "eel")
    assert library.targets().tolist() == LABELS.tolist()
    assert library.predictions("ann") == pytest.approx(answers(0), abs=1e-7)


def test_parquet_is_read_like_csv(library: Library, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(["cat", "dog", "eel"], answers(0).T, strict=True))
    table = arrow.table({**columns, "label": ["cat", "dog", "eel", "dog"]})
    parquet.write_table(table, tmp_path / "ann.parquet")
    import_predictions(library, tmp_path / "ann.parquet")
    assert library.targets().tolist() == LABELS.tolist()
    assert library.predictions("ann") == pytest.approx(answers(0), abs=1e-7)


def test_a_folder_brings_a_model_a_file_with_labels_and_costs(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    write_csv(folder / "ann.csv", answers(0))
    np.save(folder / "bob.npy", answers(1))
    (folder / "labels.csv").write_text("label\ncat\ndog\neel\ndog\n")
    (folder / "costs.csv").write_text("name,seconds,bytes\nann,1.5,10\nbob,2,20\n")
    import_predictions(library, folder)
    assert library.ids() == ["ann", "bob"]
    assert library.targets().tolist() == LABELS.tolist()
    assert library.member("ann").costs == {"seconds": 1.5, "bytes": 10.0}


def test_labels_of_the_library_serve_later_imports(library: Library) -> None:
    import_predictions(library, {"ann": answers(0)}, LABELS, classes=["cat", "dog", "eel"])
    import_predictions(library, {"bob": answers(1)})
    assert library.member("bob").classes == ("cat", "dog", "eel")


def test_test_predictions_are_added_to_members_that_are_there(library: Library) -> None:
    import_predictions(library, {"ann": answers(0)}, LABELS)
    import_predictions(library, {"ann": answers(5)[:3]}, LABELS[:3], split="test")
    member = library.member("ann")
    assert set(member.losses) >= {"valid_cross_entropy", "test_cross_entropy", "test_accuracy"}
    assert library.true_class_probabilities(["ann"], "test").shape == (1, 3)


def test_a_member_is_replaced_only_when_asked(library: Library) -> None:
    import_predictions(library, {"ann": answers(0)}, LABELS)
    import_predictions(library, {"ann": answers(1)}, LABELS, replace=True)
    assert library.predictions("ann") == pytest.approx(answers(1), abs=1e-7)


def test_what_is_imported_can_be_selected_from(library: Library) -> None:
    import_predictions(library, {f"m{i}": answers(i) for i in range(6)}, LABELS)
    choice = select_members(
        library.true_class_probabilities(library.ids()), costs=np.ones(6), budget=3.0, names=library.ids()
    )
    mapped = select_members(library.true_class_mapped(library.ids()), costs=np.ones(6), budget=3.0)
    assert choice == mapped


def test_a_disk_that_fills_up_leaves_none_of_the_models(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    import_predictions(library, {"ann": answers(0)}, LABELS)
    add, calls = Library.add, []

    def full(self: Library, *arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise RipienoError("cannot write: No space left on device")
        add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Library, "add", full)
    with pytest.raises(RipienoError, match="No space"):
        import_predictions(library, {"bob": answers(1), "cid": answers(2)})
    assert library.ids() == ["ann"]


def test_a_table_keeps_text_as_text_and_numbers_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffname, seconds\n ann ,1e-3\nbob,2\n", encoding="utf-8")
    columns = read_table(tmp_path / "t.csv").columns
    assert columns["name"].tolist() == ["ann", "bob"]
    assert columns["seconds"].tolist() == [0.001, 2.0]


def wins(labels: list[int], classes: int = 3) -> NDArray[np.float64]:
    """Build predictions that are right for all of `labels`."""
    return np.full((len(labels), classes), 0.1) + np.eye(classes)[labels] * (1 - 0.1 * classes)


def written(path: Path, header: str, rows: list[list[Any]], mark: str = ",") -> Path:
    path.write_text("\n".join([header, *(mark.join(map(str, row)) for row in rows)]) + "\n")
    return path


ORDER = [0, 1, 2, 1, 0]


@pytest.mark.parametrize(
    ("header", "labels"),
    [
        ("1,2,3", [1, 2, 3, 2, 1]),
        ("1,0,2", [1, 0, 2, 0, 1]),
        ("10,2,1", ["10", 2, 1, "2", 10]),
        ("001,002,1", ["001", "002", 1, "002", "001"]),
    ],
)
def test_labels_of_a_table_are_the_names_of_its_columns(tmp_path: Path, header: str, labels: list[Any]) -> None:
    rows = [[*row, label] for row, label in zip(wins(ORDER).tolist(), labels, strict=True)]
    (member,) = import_predictions(Library(tmp_path / "run"), written(tmp_path / "m.csv", f"{header},label", rows))
    assert member.losses["valid_accuracy"] == 1.0
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    columns = {name: wins(ORDER)[:, i] for i, name in enumerate(header.split(","))}
    texts = pyarrow.array([str(label) for label in labels]).dictionary_encode()
    parquet.write_table(pyarrow.table({**columns, "label": texts}), tmp_path / "m.parquet")
    (member,) = import_predictions(Library(tmp_path / "other"), tmp_path / "m.parquet")
    assert member.losses["valid_accuracy"] == 1.0


def test_labels_that_could_be_names_or_positions_are_refused(tmp_path: Path) -> None:
    rows = [[*row, label] for row, label in zip(wins(ORDER).tolist(), ORDER, strict=True)]
    with pytest.raises(LibraryError, match=r"labels contain 0, .* by position"):
        import_predictions(Library(tmp_path / "run"), written(tmp_path / "m.csv", "1,2,3,label", rows))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("index", ["", "Unnamed: 0", "index"])
def test_the_index_that_pandas_writes_is_no_class(tmp_path: Path, index: str) -> None:
    rows = [[place, *row] for place, row in enumerate(wins(ORDER).tolist())]
    table = written(tmp_path / "m.csv", f"{index};cat;dog;emu", rows, ";")
    (member,) = import_predictions(Library(tmp_path / "run"), table, ORDER)
    assert member.classes == ("cat", "dog", "emu")


def test_a_table_without_column_names_is_refused(tmp_path: Path) -> None:
    table = written(tmp_path / "m.csv", "0.8,0.1,0.1", wins(ORDER).tolist())
    with pytest.raises(LibraryError, match="column names"):
        import_predictions(Library(tmp_path / "run"), table, ORDER)
    labels = written(tmp_path / "labels.csv", "0", [[label] for label in ORDER])
    with pytest.raises(LibraryError, match="column name"):
        import_predictions(Library(tmp_path / "run"), {"m": wins(ORDER)}, labels)


def test_models_and_costs_named_by_numbers_meet_by_name_and_suffixes_in_any_case(tmp_path: Path) -> None:
    folder = tmp_path / "preds"
    folder.mkdir()
    np.save(folder / "1.npy", wins(ORDER))
    np.save(folder / "02.npy", wins(ORDER) * 0.9 + 0.1 / 3)
    (folder / "02.npy").rename(folder / "02.NPY")
    np.save(folder / "labels.npy", np.array(ORDER))
    written(folder / "costs.csv", "name,seconds", [["1", 0.5], ["02", 0.7]])
    made = import_predictions(Library(tmp_path / "run"), folder)
    assert {m.id: m.costs["seconds"] for m in made} == {"1": 0.5, "02": 0.7}


def test_hard_answers_that_err_differently_are_no_copies(tmp_path: Path) -> None:
    one, two = np.eye(3)[ORDER], np.eye(3)[ORDER]
    one[3], two[3] = np.eye(3)[0], np.eye(3)[2]
    library = Library(tmp_path / "run")
    assert len(import_predictions(library, {"a": one, "b": two}, ORDER)) == 2
    with pytest.raises(LibraryError, match="c has exactly the predictions of b"):
        import_predictions(library, {"c": two})


def test_predictions_that_are_worse_than_guessing_are_noted(tmp_path: Path) -> None:
    notes: list[str] = []
    order = [0, 1, 2] * 30
    import_predictions(Library(tmp_path / "run"), {"m": wins(order)[:, [1, 2, 0]]}, order, notes=notes)
    assert len(notes) == 1
    assert notes[0].startswith("m is right for 0%")


def test_masked_predictions_are_refused(tmp_path: Path) -> None:
    masked = np.ma.masked_less(wins(ORDER), 0.2)
    with pytest.raises(LibraryError, match="masked"):
        import_predictions(Library(tmp_path / "run"), {"m": masked}, ORDER)


# tables as written by pandas and spreadsheets

WORDS = ["cat", "dog", "eel"]


@pytest.mark.parametrize("first", ["", "Unnamed: 0"])
@pytest.mark.parametrize("rows", [["3", "1", "0", "2"], ["a.png", "b.png", "c.png", "d.png"]])
def test_a_column_without_a_name_of_its_own_is_no_class(
    library: Library, tmp_path: Path, first: str, rows: list[str]
) -> None:
    lines = [",".join([row, *map(str, values)]) for row, values in zip(rows, answers(0).tolist(), strict=True)]
    (tmp_path / "ann.csv").write_text("\n".join([f"{first},cat,dog,eel", *lines]))
    import_predictions(library, tmp_path / "ann.csv", LABELS)
    assert library.member("ann").classes == ("cat", "dog", "eel")
    assert library.predictions("ann") == pytest.approx(answers(0), abs=1e-6)


def test_a_column_that_holds_no_probabilities_is_named(library: Library, tmp_path: Path) -> None:
    lines = [",".join([str(7 + row), *map(str, values)]) for row, values in enumerate(answers(0).tolist())]
    (tmp_path / "ann.csv").write_text("\n".join(["id,cat,dog,eel", *lines]))
    with pytest.raises(RipienoError, match=r"column 'id' holds 7.*other columns"):
        import_predictions(library, tmp_path / "ann.csv", LABELS)


def test_semicolons_part_columns_and_commas_are_decimal_points(library: Library, tmp_path: Path) -> None:
    lines = [";".join(map(str, values)).replace(".", ",") for values in answers(0).round(6).tolist()]
    (tmp_path / "ann.csv").write_text("\n".join(['"cat, big";dog;eel', *lines]))
    import_predictions(library, tmp_path / "ann.csv", LABELS)
    assert library.member("ann").classes == ("cat, big", "dog", "eel")
    assert library.predictions("ann") == pytest.approx(answers(0), abs=1e-5)


def test_the_columns_of_a_data_frame_name_the_classes(library: Library) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(answers(0), columns=WORDS)
    labels = pandas.Series(pandas.Categorical(np.array(WORDS)[LABELS]))
    import_predictions(library, {"ann": frame}, labels)
    assert library.member("ann").classes == ("cat", "dog", "eel")
    assert library.targets().tolist() == LABELS.tolist()


def test_columns_in_another_order_than_the_classes_are_refused(library: Library) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(answers(0), columns=["eel", "dog", "cat"])
    with pytest.raises(RipienoError, match="columns of predictions are named eel, dog, cat"):
        import_predictions(library, {"ann": frame}, LABELS, classes=WORDS)


def test_costs_of_models_named_by_numbers_come_from_pandas(library: Library) -> None:
    pandas = pytest.importorskip("pandas")
    models = {1: answers(0), 2: answers(1)}
    costs = pandas.DataFrame({"seconds": [3.0, 4.0]}, index=[1, 2])
    members = import_predictions(library, models, LABELS, costs)  # type: ignore[arg-type]
    assert [m.costs for m in members] == [{"seconds": 3.0}, {"seconds": 4.0}]


def test_costs_may_be_one_number_a_model(library: Library) -> None:
    members = import_predictions(library, {"1": answers(0), "2": answers(1)}, LABELS, {1: 3.0, 2: 4})
    assert [m.costs for m in members] == [{"cost": 3.0}, {"cost": 4.0}]


@pytest.mark.parametrize("costs", [5, [1.0, 2.0]])
def test_costs_of_another_form_are_refused(library: Library, costs: object) -> None:
    with pytest.raises(RipienoError, match=r"costs are (int|list)"):
        import_predictions(library, {"ann": answers(0)}, LABELS, costs)  # type: ignore[arg-type]


def test_masked_labels_are_refused(library: Library) -> None:
    with pytest.raises(RipienoError, match="labels are masked"):
        import_predictions(library, {"ann": answers(0)}, np.ma.array(LABELS, mask=LABELS == 2))


def test_a_folder_reads_class_names_whatever_the_case_and_notes_what_it_left_out(
    library: Library, tmp_path: Path
) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    for name, values in {"ann": answers(0), "Labels": np.array(WORDS)[LABELS], "classes": np.array(WORDS)}.items():
        np.save(folder / f"{name}.npy", values)
    (folder / "._ann.npy").write_bytes(b"a fork of resources")
    (folder / "bob.pkl").write_bytes(b"")
    notes: list[str] = []
    import_predictions(library, folder, notes=notes)
    assert library.ids() == ["ann"]
    assert library.member("ann").classes == ("cat", "dog", "eel")
    assert [note for note in notes if "skipped" in note] == [f"{folder}: skipped 1 files without predictions: bob.pkl"]


def test_two_files_of_labels_are_refused(library: Library, tmp_path: Path) -> None:
    np.save(tmp_path / "ann.npy", answers(0))
    np.save(tmp_path / "labels.npy", LABELS)
    (tmp_path / "labels.csv").write_text("label\n0\n0\n0\n0\n")
    with pytest.raises(RipienoError, match=r"labels\.csv and labels\.npy"):
        import_predictions(library, tmp_path)


def test_a_file_of_labels_without_a_column_name_is_told_of(library: Library, tmp_path: Path) -> None:
    write_csv(tmp_path / "ann.csv", answers(0))
    (tmp_path / "names.csv").write_text("cat\ndog\neel\ndog\n")
    with pytest.raises(RipienoError, match="begin with a column name"):
        import_predictions(library, tmp_path / "ann.csv", tmp_path / "names.csv")
