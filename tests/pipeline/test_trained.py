"""What pools are told of a job's progress."""

from __future__ import annotations

from pathlib import Path

from ripieno.library import Library
from ripieno.pipeline.tuning import trial_progress
from ripieno.types import Job


def test_an_epoch_more_changes_what_is_said_of_a_job_and_of_no_other(tmp_path: Path) -> None:
    library = Library(tmp_path)
    path = library.checkpoint_path(3)
    path.parent.mkdir(parents=True)
    said = [trial_progress(library, Job(3, {}, 0, 9))]
    for epoch in (b"1", b"2"):
        path.with_suffix(".tmp").write_bytes(epoch)
        path.with_suffix(".tmp").replace(path)
        said.append(trial_progress(library, Job(3, {}, 0, 9)))
    assert len(set(said)) == 3
    assert trial_progress(library, Job(4, {}, 0, 9)) == said[0]
