from __future__ import annotations

from ripieno.notes import Notes


def test_every_note_is_told_once_at_the_moment_it_is_added() -> None:
    told: list[str] = []
    notes = Notes(told.append)
    notes.append("a")
    assert told == ["a"]
    notes += ["b", "c"]
    notes.extend(["d"])
    assert told == list(notes) == ["a", "b", "c", "d"]
