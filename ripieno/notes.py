"""Notes for the user: warnings that do not stop the work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Self

_LOGGER = logging.getLogger("ripieno")


class Notes(list[str]):
    """List of notes that passes each note to a callback at once; by default to the logger `ripieno`."""

    def __init__(self, tell: Callable[[str], object] = _LOGGER.warning) -> None:
        super().__init__()
        self._emit = tell

    def append(self, note: str) -> None:
        """Add a note."""
        super().append(note)
        self._emit(note)

    def extend(self, notes: Iterable[str]) -> None:
        """Add notes one by one."""
        for note in notes:
            self.append(note)

    def __iadd__(self, notes: Iterable[str]) -> Self:  # type: ignore[override,misc]
        self.extend(notes)
        return self
