"""Notes for a person: what is good to know and stops nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Self

_LOGGER = logging.getLogger("ripieno")


class Notes(list[str]):
    """A list of notes that gives each to `tell` as soon as it is there; by default to the logger `ripieno`."""

    def __init__(self, tell: Callable[[str], object] = _LOGGER.warning) -> None:
        super().__init__()
        self._tell = tell

    def append(self, note: str) -> None:
        """Add a note."""
        super().append(note)
        self._tell(note)

    def extend(self, notes: Iterable[str]) -> None:
        """Add notes, one after the other."""
        for note in notes:
            self.append(note)

    def __iadd__(self, notes: Iterable[str]) -> Self:  # type: ignore[override,misc]
        self.extend(notes)
        return self
