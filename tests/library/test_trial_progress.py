"""Progress of a trial within an epoch, from its worker to whoever shows the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from ripieno.library.trial_progress import ProgressWriter, TrialProgress, read_progress
from ripieno.types import Job

JOB = Job(3, {}, 3, 9)


def test_a_reader_sees_the_epoch_and_the_batch(tmp_path: Path) -> None:
    path, now = tmp_path / "progress" / "00003.json", [0.0]
    writer = ProgressWriter(path, lambda: now[0])
    assert read_progress(path, JOB) is None
    writer.start_epoch(4)
    assert read_progress(path, JOB) == TrialProgress(4)
    now[0] = 1.5
    writer.batch(12, 40)
    assert read_progress(path, JOB) == TrialProgress(4, 12, 40)
    assert TrialProgress(4, 12, 40).epochs == pytest.approx(3.3)
    writer.close()
    assert read_progress(path, JOB) is None
    assert not list(path.parent.iterdir())


def test_it_is_written_at_most_once_a_second(tmp_path: Path) -> None:
    path, now = tmp_path / "00003.json", [0.0]
    writer = ProgressWriter(path, lambda: now[0])
    seen = set()
    for batch in range(1, 101):  # ten seconds
        now[0] = batch / 10
        writer.batch(batch, 100)
        seen.add(read_progress(path, Job(3, {}, 0, 1)))
    assert len(seen) == 10


def test_the_progress_of_an_earlier_job_is_none_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "00003.json"
    ProgressWriter(path).start_epoch(3)
    assert read_progress(path, JOB) is None
    assert read_progress(path, Job(3, {}, 1, 3)) == TrialProgress(3)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 99, "epoch": 4}'])
def test_a_file_that_cannot_be_read_is_no_progress(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "00003.json"
    path.write_bytes(content)
    assert read_progress(path, JOB) is None


def test_a_folder_that_cannot_be_written_does_not_end_the_job(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text("a file")
    writer = ProgressWriter(tmp_path / "progress" / "00003.json")
    writer.start_epoch(4)
    writer.close()
