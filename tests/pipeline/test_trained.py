"""Progress of a job as pools see it."""

from __future__ import annotations

from pathlib import Path

from ripieno.library import Library
from ripieno.pipeline.search_execution import trial_progress
from ripieno.types import Job


def test_one_more_epoch_changes_the_progress_of_its_trial_only(tmp_path: Path) -> None:
    library = Library(tmp_path)
    path = library.checkpoint_path(3)
    path.parent.mkdir(parents=True)
    progress = [trial_progress(library, Job(3, {}, 0, 9))]
    for epoch in (b"1", b"2"):
        path.with_suffix(".tmp").write_bytes(epoch)
        path.with_suffix(".tmp").replace(path)
        progress.append(trial_progress(library, Job(3, {}, 0, 9)))
    assert len(set(progress)) == 3
    assert trial_progress(library, Job(4, {}, 0, 9)) == progress[0]
