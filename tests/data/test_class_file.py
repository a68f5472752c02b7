"""Names and colours of classes in a file beside masks."""

from __future__ import annotations

from pathlib import Path

import pytest

from ripieno.data.class_file import find_class_file
from ripieno.errors import DataError

ROADS = (("road", "tree trunk"), ((128, 64, 128), (0, 1, 2)))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "road\n\ntree trunk\n", (ROADS[0], ())),
        ("classes.txt", "# index order\nroad 128 64 128\ntree trunk\t0, 1, 2\n", ROADS),
        ("classes.txt", "128 64 128 road\r\n0,1,2,tree trunk\r\n", ROADS),
        ("classes.json", '["road", "tree trunk"]', (ROADS[0], ())),
        ("classes.json", '{"road": [128, 64, 128], "tree trunk": [0, 1, 2]}', ROADS),
    ],
)
def test_names_and_colours_are_read_in_order(tmp_path: Path, name: str, text: str, expected: object) -> None:
    (tmp_path / name).write_text(text)
    found = find_class_file(tmp_path)
    assert found is not None
    assert (found.names, found.colours) == expected


def test_a_folder_without_such_a_file_has_none(tmp_path: Path) -> None:
    assert find_class_file(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "road\nroad\n", "named 'road'"),
        ("classes.txt", "road 1 2 3\nsky\n", "no colour for class 'sky'"),
        ("classes.txt", "road 1 2 3\nsky 1 2 3\n", "'road' and 'sky' the same colour"),
        ("classes.txt", "road 1 2 256\nsky 1 2 3\n", "'road' the colour (1, 2, 256)"),
        ("classes.json", "{", "cannot be read as JSON"),
        ("classes.json", '{"road": "red"}', "expected a list of names"),
        ("classes.json", "[1, 2]", "expected a list of names"),
    ],
)
def test_other_content_is_refused_in_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        find_class_file(tmp_path)
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "classes.json").write_text('["a", "b"]')
    with pytest.raises(DataError, match="leave one out"):
        find_class_file(tmp_path)
