"""Invalid imports: one clear line names the model, and the library is unchanged to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ripieno.errors import LibraryError
from ripieno.library import Library, import_predictions

LABELS = np.array([0, 1, 2, 1])
GOOD = np.random.default_rng(7).dirichlet([1, 1, 1], 4)
THERE = np.random.default_rng(8).dirichlet([1, 1, 1], 4)


def changed(place: tuple[int, int], value: float) -> np.ndarray:
    copy = GOOD.copy()
    copy[place] = value
    return copy


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


ARRAYS: list[tuple[str, Any, dict[str, Any]]] = [
    ("there are no models", {}, {}),
    ("bob: predictions have shape \\(4,\\)", {"bob": GOOD[:, 0]}, {}),
    ("bob: predictions of 3 samples, but there are 4 labels", {"bob": GOOD[:3]}, {}),
    ("bob: predictions of 2 classes, must be of 3", {"bob": GOOD[:, :2]}, {}),
    ("bob: predictions are of type <U1", {"bob": np.full((4, 3), "x")}, {}),
    ("bob: predictions are of type object", {"bob": np.full((4, 3), None)}, {}),
    ("bob: predictions are no array", {"bob": [[0.5, 0.5], [1.0]]}, {}),
    ("bob: 1 predictions are NaN or infinite, first of sample 2", {"bob": changed((2, 0), np.nan)}, {}),
    ("bob: 1 predictions are NaN or infinite, first of sample 1", {"bob": changed((1, 2), np.inf)}, {}),
    ("bob: a prediction is -0\\.1", {"bob": changed((0, 1), -0.1)}, {}),
    ("bob: a prediction is 3.*softmax", {"bob": changed((0, 1), 3.0)}, {}),
    ("bob: predictions of sample 3 sum to 0", {"bob": changed((3, 2), 0.0) * [[1], [1], [1], [0]]}, {}),
    ("cid: a prediction is -1", {"bob": GOOD, "cid": -np.ones((4, 3))}, {}),
    ("cid has exactly the predictions of bob", {"bob": GOOD, "cid": GOOD.copy()}, {}),
    ("bob has exactly the predictions of ann", {"bob": THERE}, {}),
    ("already has a member 'ann'", {"ann": GOOD}, {}),
    ("'../bob' cannot name a member", {"../bob": GOOD}, {}),
    ("'' cannot name a member", {"": GOOD}, {}),
    ("labels differ from those of .* \\(from sample 0 on\\)", {"bob": GOOD}, {"labels": [1, 1, 2, 1]}),
    ("labels differ from those of .* \\(number\\)", {"bob": GOOD[:3]}, {"labels": [0, 1, 2]}),
    ("labels have shape \\(4, 1\\)", {"bob": GOOD}, {"labels": LABELS[:, None]}),
    ("labels contain 3: expected 0 to 2", {"bob": GOOD}, {"labels": [0, 1, 2, 3]}),
    ("labels contain -1: expected 0 to 2", {"bob": GOOD}, {"labels": [0, 1, 2, -1]}),
    ("labels contain 'yak', which is not one of the 3 class", {"bob": GOOD}, {"labels": ["cat", "dog", "eel", "yak"]}),
    ("labels contain 0.5 for sample 3", {"bob": GOOD}, {"labels": [0, 1, 2, 0.5]}),
    ("the names of the classes differ from those of", {"bob": GOOD}, {"classes": ["cat", "dog", "yak"]}),
    ("two classes of the models are named 'dog'", {"bob": GOOD}, {"classes": ["cat", "dog", "dog"]}),
    ("there is only the class 'cat'", {"bob": GOOD[:, :1]}, {"classes": ["cat"]}),
    ("there is a cost of 'cid', but no such model", {"bob": GOOD}, {"costs": {"cid": {"seconds": 1}}}),
    ("bob has no cost", {"bob": GOOD, "cid": GOOD[::-1]}, {"costs": {"cid": {"seconds": 1}}}),
    ("bob costs nan seconds", {"bob": GOOD}, {"costs": {"bob": {"seconds": float("nan")}}}),
    ("bob costs -1 seconds", {"bob": GOOD}, {"costs": {"bob": {"seconds": -1}}}),
    ("bob costs 1 seconds, must be a number", {"bob": GOOD}, {"costs": {"bob": {"seconds": "1"}}}),
    ("cid has costs", {"bob": GOOD, "cid": GOOD[::-1]}, {"costs": {"bob": {"s": 1}, "cid": {"b": 1}}}),
    ("has no member 'bob'; add its validation", {"bob": GOOD}, {"split": "test", "labels": LABELS}),
    ("there are no test labels", {"ann": GOOD}, {"split": "test"}),
]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    library = Library(tmp_path / "run")
    import_predictions(library, {"ann": THERE}, LABELS, classes=["cat", "dog", "eel"])
    return library


@pytest.mark.parametrize(("line", "source", "options"), ARRAYS, ids=[line for line, _, _ in ARRAYS])
def test_malformed_arrays_are_one_line_and_change_nothing(
    library: Library, line: str, source: Any, options: dict[str, Any]
) -> None:
    before = snapshot(library.path)
    with pytest.raises(LibraryError, match=line) as caught:
        import_predictions(library, source, **options)
    assert "\n" not in str(caught.value)
    assert snapshot(library.path) == before


FILES: list[tuple[str, dict[str, str | bytes]]] = [
    ("does not exist", {}),
    ("expected .npy, .npz, .csv, .parquet", {"bob.txt": "hello"}),
    ("bob.npy is not a readable .npy file", {"bob.npy": b"nonsense"}),
    ("bob.npz is not a readable .npz file", {"bob.npz": b"nonsense"}),
    ("bob.csv has no rows", {"bob.csv": "cat,dog,eel\n"}),
    ("bob.csv row 3 has 2 values, but the first row has 3", {"bob.csv": "cat,dog,eel\n0,0,1\n0,1\n"}),
    ("two columns of .*bob.csv are named 'cat'", {"bob.csv": "cat,cat,eel\n0,0,1\n"}),
    ("bob.csv column 'dog' holds 'x'", {"bob.csv": "cat,dog,eel\n0,x,1\n"}),
    ("bob.csv is no text in UTF-8", {"bob.csv": b"\xff\xfe\x00"}),
    ("bob.csv has no columns of classes", {"bob.csv": "label\n0\n"}),
    ("the names of the classes differ", {"bob.csv": "cat,eel,dog\n0,0,1\n0,0,1\n0,0,1\n0,0,1\n"}),
]


@pytest.mark.parametrize(("line", "contents"), FILES, ids=[line for line, _ in FILES])
def test_malformed_files_are_one_line_and_change_nothing(
    library: Library, tmp_path: Path, line: str, contents: dict[str, str | bytes]
) -> None:
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    before = snapshot(library.path)
    with pytest.raises(LibraryError, match=line):
        import_predictions(library, tmp_path / next(iter(contents), "absent.npy"))
    assert snapshot(library.path) == before


FOLDERS: list[tuple[str, dict[str, str]]] = [
    ("holds no predictions", {"labels.csv": "label\n0\n1\n2\n1\n"}),
    ("two files contain a model named 'bob'", {"bob.csv": "cat,dog,eel\n0,0,1\n", "bob.npy": ""}),
    ("no column `label`", {"labels.csv": "a,b\n0,1\n"}),
    ("must have a column `name`", {"costs.csv": "seconds\n1\n"}),
    ("two rows of .*costs.csv are named 'bob'", {"costs.csv": "name,seconds\nbob,1\nbob,2\n"}),
    ("column 'seconds' holds 'fast'", {"costs.csv": "name,seconds\nbob,fast\n"}),
    ("name different classes", {"cid.csv": "a,b,c\n0,0,1\n0,0,1\n0,0,1\n0,0,1\n"}),
    ("other labels than the models before it", {"cid.csv": "cat,dog,eel,label\n0,0,1,0\n0,0,1,0\n0,0,1,0\n0,0,1,0\n"}),
]


@pytest.mark.parametrize(("line", "contents"), FOLDERS, ids=[line for line, _ in FOLDERS])
def test_malformed_folders_are_one_line_and_change_nothing(
    library: Library, tmp_path: Path, line: str, contents: dict[str, str]
) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    if "labels.csv" not in contents or len(contents["labels.csv"].split()) != 5:
        pairs = zip(GOOD.tolist(), LABELS, strict=True)
        rows = "\n".join(",".join(map(repr, row)) + f",{label}" for row, label in pairs)
        (folder / "bob.csv").write_text(f"cat,dog,eel,label\n{rows}\n")
    for name, content in contents.items():
        if name.endswith(".npy"):
            np.save(folder / name, GOOD)
        else:
            (folder / name).write_text(content)
    before = snapshot(library.path)
    with pytest.raises(LibraryError, match=line):
        import_predictions(library, folder)
    assert snapshot(library.path) == before


def test_an_npz_with_other_counts_is_named(library: Library, tmp_path: Path) -> None:
    before = snapshot(library.path)
    cube = np.stack([GOOD, GOOD[::-1]])
    np.savez(tmp_path / "zoo.npz", predictions=cube, names=np.array(["bob"]))
    with pytest.raises(LibraryError, match="1 names for 2 models"):
        import_predictions(library, tmp_path / "zoo.npz")
    np.savez(tmp_path / "zoo.npz", predictions=cube, names=np.array(["bob", "bob"]))
    with pytest.raises(LibraryError, match="two models are named 'bob'"):
        import_predictions(library, tmp_path / "zoo.npz")
    np.savez(tmp_path / "zoo.npz", predictions=cube, costs=np.ones(3))
    with pytest.raises(LibraryError, match="costs have shape"):
        import_predictions(library, tmp_path / "zoo.npz")
    np.savez(tmp_path / "zoo.npz", predictions=np.array([{"a": 1}], dtype=object))
    with pytest.raises(LibraryError, match="plain arrays"):
        import_predictions(library, tmp_path / "zoo.npz")
    assert snapshot(library.path) == before


def test_a_broken_parquet_file_is_named(library: Library, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "bob.parquet").write_bytes(b"nonsense")
    with pytest.raises(LibraryError, match="not readable as Parquet"):
        import_predictions(library, tmp_path / "bob.parquet")
