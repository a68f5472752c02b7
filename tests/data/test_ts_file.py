"""The `.ts` format: channels, classes, numbers, missing values, lines that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ripieno.data.ts_file import read_ts
from ripieno.errors import DataError

NAN = np.nan


def write(tmp_path: Path, header: str, *lines: str) -> Path:
    path = tmp_path / "toy.ts"
    path.write_text("\n".join(("# of a test", "", *header.split("|"), "@data", *lines)) + "\n")
    return path


def test_series_of_several_channels_and_lengths_are_read(tmp_path: Path) -> None:
    header = (
        "@problemName toy|@timeStamps false|@missing true|@Dimensions 2|@equalLength false|@classLabel true Up down"
    )
    found = read_ts(write(tmp_path, header, "1,2.5,-3e1:4,?,6:Up", "# between", "7, 8:9,NaN:down"))
    expected = [[[1, 4], [2.5, NAN], [-30, 6]], [[7, 9], [8, NAN], [NAN, NAN]]]
    np.testing.assert_array_equal(found.series, np.array(expected, np.float32))
    assert found.targets is not None
    assert found.targets.tolist() == ["Up", "down"]
    assert (found.names, found.task) == (("Up", "down"), "classification")


def test_targets_are_numbers_labels_or_absent(tmp_path: Path) -> None:
    found = read_ts(write(tmp_path, "@targetlabel TRUE", "1,2:0.5", "3,4:-1"))
    assert found.targets is not None
    assert (found.task, found.targets.tolist()) == ("regression", ["0.5", "-1"])
    found = read_ts(write(tmp_path, "@classlabel true a b", "1,2:a|b", "3,4:b"))
    assert (found.task, found.names) == ("multilabel", ("a", "b"))
    found = read_ts(write(tmp_path, "@classlabel false", "1,2:3,4"))
    assert found.targets is None
    assert found.series.shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        ("@classLabel true a", "1,2:3,4:5,6:a", "toy.ts line 6 has 3 channels; expected 1, as in the first sample"),
        ("@classLabel true a", "1,x2,3:a", "toy.ts line 6 holds 'x2'; expected numbers between commas"),
        ("@classLabel true a", "a", "toy.ts line 6 has 0 channels"),
        ("@classLabel true a", ":a", "toy.ts line 6 holds ''; expected numbers between commas"),
        (
            "@classLabel false",
            "1,2:a",
            r"toy.ts line 5 holds 'a' \(a class\? the header says @classLabel false\); expected",
        ),
        ("@classLabel true a|@timeStamps true", "(0,1):a", "has time stamps; expected values at equal intervals"),
        ("1,2:a", "1,2:a", "no .ts file: line 3 comes before @data"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, header: str, line: str, message: str) -> None:
    path = write(tmp_path, header, "1,2,3:a", line)
    with pytest.raises(DataError, match=message) as caught:
        read_ts(path)
    assert "\n" not in str(caught.value)


def test_channels_of_unequal_lengths_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 5 has channels of 1 and 2 values; expected one length in a sample"):
        read_ts(write(tmp_path, "@classLabel true a", "1,2:3:a"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"@classLabel true a\n@data\n", "has no samples after @data"),
        (b"@classLabel true a\n", "there is no @data"),
        (b"", "there is no @data"),
        (b"@data\n\xff\xfe\x00", "is no text in UTF-8"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "toy.ts"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_ts(path)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ripieno.data.text_lines.LONGEST", 100)
    with pytest.raises(DataError, match="line 5 has 100 characters or more"):
        read_ts(write(tmp_path, "@classLabel false", "1," * 200))
