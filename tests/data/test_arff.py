"""The `.arff` format of series: one channel in columns, several in a relational attribute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.data.arff import read_arff
from ripieno.errors import DataError

POINTS = "@attribute a numeric\n@attribute b numeric\n@attribute c real\n"


def write(tmp_path: Path, attributes: str, *lines: str) -> Path:
    path = tmp_path / "toy.arff"
    path.write_text(f"% of a test\n@relation toy\n{attributes}@data\n" + "\n".join(lines) + "\n")
    return path


def test_numeric_attributes_are_points_and_the_last_is_the_target(tmp_path: Path) -> None:
    found = read_arff(write(tmp_path, POINTS + "@attribute y {'go up',down}\n", "1,?,2,'go up'", "3,4,?,down"))
    np.testing.assert_array_equal(found.series[..., 0], [[1, np.nan, 2], [3, 4, np.nan]])
    assert found.targets is not None
    assert (found.targets.tolist(), found.names, found.task) == (["go up", "down"], ("go up", "down"), "classification")


def test_channels_are_rows_of_a_relational_attribute(tmp_path: Path) -> None:
    attributes = f"@attribute bag relational\n{POINTS}@end bag\n@attribute y numeric\n"
    found = read_arff(write(tmp_path, attributes, "'1,2,3\\n4,5,6',0.5", "'7,8,?\\n9,1,?',2"))
    np.testing.assert_array_equal(found.series, [[[1, 4], [2, 5], [3, 6]], [[7, 9], [8, 1], [np.nan, np.nan]]])
    assert found.targets is not None
    assert (found.targets.tolist(), found.task) == ([0.5, 2], None)


def test_targets_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, POINTS + "@attribute y {0,1}\n@attribute z {0,1}\n", "1,2,3,0,1", "3,4,5,1,1")
    found = read_arff(path, ("y", "z"))
    assert found.targets is not None
    assert (found.targets.tolist(), found.columns) == ([[0, 1], [1, 1]], ("y", "z"))
    with pytest.raises(DataError, match=r"has no attribute 'w'; expected one of a, b, c, \.\.\., z"):
        read_arff(path, ("w",))
    with pytest.raises(DataError, match=r"attribute 'y' of .* is nominal; expected numeric ones besides the target"):
        read_arff(path)


@pytest.mark.parametrize(
    ("attributes", "line", "message"),
    [
        (POINTS, "1,2", "is not readable as ARFF"),
        (POINTS + "@attribute y string\n", "1,2,3,x", "is not readable as ARFF"),
        (POINTS + "@attribute y {a}\n", "1,2,3,b", "is not readable as ARFF .*b.* value not in"),
        ("@attribute y {a}\n", "a", "has no attributes besides the target"),
        ("", "", "is not readable as ARFF|has no attributes"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, attributes: str, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_arff(write(tmp_path, attributes, line))
    assert "\n" not in str(caught.value)
