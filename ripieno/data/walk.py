"""Walk over the files below a folder, shared by training and prediction, with a count of skipped entries.

Links are followed, except those that lead back to a folder above them. Skipped and counted are hidden files and
folders, those of operating systems and tools, entries that are neither file nor folder (pipes, sockets, devices), and
folders that ripieno wrote.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from ripieno.data.image_io import suffixes
from ripieno.errors import DataError

SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "#snapshot", "$recycle.bin"}
SYSTEM |= {"system volume information", "lost+found", "__pycache__"}
"""Lower-case names of files and folders that operating systems, storage devices and Python create by themselves."""
MADE = (
    "run.json",
    "journal.log",
    "bundle.json",
    "dataset/dataset.json",
    "library/targets-valid.npy",
    "library/labels-valid.npy",  # in version 1
    "split.npy",
)
"""Files that identify a folder written by ripieno: a run, a deployment or a prepared data set."""
HIDDEN = "hidden or system"
NO_IMAGE = "not an image by name"
NO_CLASS = "outside a class folder"
NOWHERE = "linking nowhere"
BACK = "linking back to a folder above"
NO_FILE = "neither file nor folder"
OURS = "made by ripieno"


class Walk:
    """Walk below `folder` that also skips the folders in `apart`, and counts the skipped entries by reason."""

    def __init__(self, folder: Path, apart: Collection[Path] = ()) -> None:
        self.skipped: Counter[str] = Counter()
        self._folder = folder
        self._suffixes = suffixes()
        self._firsts: dict[str, Path] = {}  # by reason
        self._apart = {path.resolve() for path in apart}
        self._identities: dict[Path, tuple[int, int]] = {}

    def skip(self, reason: str, path: Path) -> None:
        """Count `path` as skipped."""
        self.skipped[reason] += 1
        self._firsts.setdefault(reason, path)

    def notes(self) -> list[str]:
        """Return one line that counts all skipped entries, with the first of each reason; none when there are none."""
        parts = [
            f"{count:,} {reason} (first: {shown(self._firsts[reason].relative_to(self._folder))})"
            for reason, count in self.skipped.items()
        ]
        return [f"skipped in {shown(self._folder)}: {', '.join(parts)}"] if parts else []

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """List subfolders and files directly in `folder`, by name. Raises DataError when it cannot be read."""
        names, folders = self._scan(folder)
        return [folder / n for n in names if n in folders], [folder / n for n in names if n not in folders]

    def pictures(self, folder: Path) -> Iterator[Path]:
        """Yield the files in `folder`, at any depth and by name, whose suffix is that of a picture; skip the others.

        Only the names of one folder, and of those above it, are in memory.
        """
        names, folders = self._scan(folder)
        for name in names:
            path = folder / name
            if name in folders:
                yield from self.pictures(path)
            elif path.suffix.lower() in self._suffixes:
                yield path
            else:
                self.skip(NO_IMAGE, path)

    def _scan(self, folder: Path) -> tuple[list[str], set[str]]:
        """Return the names of subfolders and files directly in `folder`, sorted, and those of the subfolders."""
        names: list[str] = []
        folders: set[str] = set()
        skipped: list[tuple[str, str]] = []
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    kept = entry if not entry.is_symlink() else None  # a link may form a cycle
                    reason = None
                    if entry.name.startswith(".") or entry.name.lower() in SYSTEM:
                        reason = HIDDEN
                    elif kept.is_dir() if kept else os.path.isdir(entry.path):
                        reason = self._reason_to_skip(Path(entry.path))
                        if reason is None:
                            folders.add(entry.name)
                    elif not (kept.is_file() if kept else os.path.isfile(entry.path)):
                        reason = NO_FILE if os.path.exists(entry.path) else NOWHERE
                    if reason is None:
                        names.append(entry.name)
                    else:
                        skipped.append((entry.name, reason))
        except OSError as error:
            raise DataError(f"{shown(folder)} cannot be read ({error.strerror}); check its permissions") from error
        for name, reason in sorted(skipped):
            self.skip(reason, folder / name)
        names.sort()
        return names, folders

    def _reason_to_skip(self, folder: Path) -> str | None:
        if self._identity(folder) in map(self._identity, folder.absolute().parents):
            return BACK
        made_by_ripieno = folder.resolve() in self._apart or any((folder / name).exists() for name in MADE)
        return OURS if made_by_ripieno else None

    def _identity(self, folder: Path) -> tuple[int, int]:
        """Return the device and inode of `folder`, which are the same through any link."""
        if folder not in self._identities:
            found = os.stat(folder)
            self._identities[folder] = (found.st_dev, found.st_ino)
        return self._identities[folder]


def shown(path: Path) -> str:
    """Return `path` as printable text: bytes that are not UTF-8 become backslash escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
