"""Broken files in a run: every command continues without them and prints one note; no file is lost."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from ripieno.__main__ import main
from ripieno.cli import console
from ripieno.library import Library

TUNE = ["--trials", "4", "--epochs", "3", "--space", "resnet-tiny", "--free", "off", "--pool", "inline", "--seed", "1"]


@pytest.fixture(scope="module")
def broken_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, bytes]]:
    """A run with two broken members and a broken profile, ensemble, front and allocation; and these files' content."""
    run = tmp_path_factory.mktemp("broken") / "run"
    shutil.copytree(finished_run, run)
    library = Library(run)
    used = {m for e in library.ensembles() for m in e.members}
    others = [m for m in library.ids() if m not in used]
    profiles = next((run / "profiles").iterdir())
    fields = json.loads(profiles.read_text())
    fields["items"] = [item | {"points": []} if item["member"] not in used else item for item in fields["items"]]
    broken = {
        run / "library" / others[0] / "member.json": b"",
        run / "library" / others[1] / "valid.npy": b"\x93NUMPY",
        profiles: json.dumps(fields).encode(),
        run / "ensembles" / "B1.json": b"{",
        run / "front.json": b'{"version": 1}',
        run / "allocations" / "A1.json": b"[]",
    }
    for path, content in broken.items():
        path.write_bytes(content)
    return run, broken


COMMANDS = {
    "show": ["show", "RUN"],
    "tune": ["tune", "IMAGES", "--run", "RUN", *TUNE],
    "measure": ["measure", "RUN", "--prune", "1"],
    "select": ["select", "RUN", "--budget", "5"],
    "front": ["front", "RUN"],
    "report": ["report", "RUN"],
    "allocate": ["allocate", "RUN", "LAST", "--bundle", "BUNDLE", "--max-benches", "0"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_continues_without_broken_files(
    name: str,
    broken_run: tuple[Path, dict[Path, bytes]],
    digit_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, broken = broken_run
    last = sorted(p.stem for p in (run / "ensembles").glob("B*.json") if p.stem != "B1")[-1]
    words = {"RUN": run, "IMAGES": digit_folder, "LAST": last, "BUNDLE": tmp_path / "bundle"}
    monkeypatch.setattr(sys, "argv", ["ripieno", *(str(words.get(word, word)) for word in COMMANDS[name])])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    console.set_output_mode(json=False, quiet=False)
    assert ended.value.code == 0, captured.err
    notes = [line for line in captured.err.splitlines() if "skipped" in line]
    assert len(notes) == len(set(notes)), "no note twice"
    if name != "allocate":  # it reads one ensemble by name
        (members,) = (line for line in notes if "members" in line)
        assert members.startswith("note: skipped 2 of the members of ")
    contents = {path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert contents.issuperset(broken.values()), "broken files keep every byte, perhaps under another name"
