"""The `.tsv` format of the UCR archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.data.ucr_tsv import read_ucr_tsv
from ripieno.errors import DataError


@pytest.mark.parametrize(
    ("labels", "task", "targets"),
    [
        (("-1", "1"), "classification", [-1, 1]),
        (("1.0", "2.0"), "classification", [1, 2]),
        (("0.5", "2"), "regression", [0.5, 2]),
        (("up", "2"), "classification", ["up", "2"]),
        (("a|b", "a"), "multilabel", ["a|b", "a"]),
    ],
)
def test_the_first_column_is_the_target(
    tmp_path: Path, labels: tuple[str, str], task: str, targets: list[object]
) -> None:
    path = tmp_path / "toy_TRAIN.tsv"
    path.write_text(f"{labels[0]}\t1.5\t-2\tNaN\n{labels[1]}\t3\t4\n")
    found = read_ucr_tsv(path)
    np.testing.assert_array_equal(found.series[..., 0], [[1.5, -2, np.nan], [3, 4, np.nan]])
    assert found.targets is not None
    assert (found.task, found.targets.tolist()) == (task, targets)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n", "line 1 has no tab; expected the class, a tab, and values between tabs"),
        ("1\t2\tx\n", "line 1 holds 'x'; expected numbers between tabs"),
        ("\n\n", "has no lines"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "toy.tsv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_ucr_tsv(path)
