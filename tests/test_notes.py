from __future__ import annotations

from ripieno.notes import Notes


def test_every_note_is_told_once_at_the_moment_it_is_added() -> None:
    passed: list[str] = []
    notes = Notes(passed.append)
    notes.append("a")
    assert passed == ["a"]
    notes += ["b", "c"]
    notes.extend(["d"])
    assert passed == list(notes) == ["a", "b", "c", "d"]
