"""Folders that cannot be written and system errors: one line with the path, exit code 2."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ripieno.__main__ import main
from ripieno.cli import console

SPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNTED = """
mount -t tmpfs none disk || exit 77
cp -r run disk/run && cp predictions.npz disk
mount -o remount,ro disk
exec {python} -c '{code}' {root}
"""
CODE = """
import json, sys
sys.path.insert(0, sys.argv.pop())
from ripieno.__main__ import main
for words in json.load(sys.stdin):
    sys.argv = ["ripieno", *words]
    try:
        main()
    except SystemExit as ended:
        print("end of", words[0], ended.code, file=sys.stderr, flush=True)
"""
QUICK = ["--trials", "9", "--epochs", "3", "--space", "resnet-tiny", "--free", "off", "--seed", "1"]
WRITING = [
    ["tune", "images", "--run", "disk/run", *QUICK],
    ["tune", "images", "--run", "disk/run", *QUICK, "--pool", "inline"],
    ["tune", "images", "--run", "disk/new", *QUICK],
    ["measure", "disk/run", "--again"],
    ["select", "disk/run", "--budget", "5"],
    ["front", "disk/run"],
    ["report", "disk/run"],
    ["allocate", "disk/run", "@last", "--bundle", "elsewhere", "--max-benches", "0"],
    ["import", "predictions.npz", "--run", "disk/run"],
    ["soup", "disk/run"],
    ["evict", "disk/run", "--quota", "1"],
]


def test_every_command_that_writes_to_a_read_only_run_is_one_line_and_show_works(
    finished_run: Path, digit_folder: Path, tmp_path: Path
) -> None:
    if shutil.which("unshare") is None or subprocess.run([*SPACE, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and the permission to mount in a private namespace")
    shutil.copytree(finished_run, tmp_path / "run")
    (tmp_path / "images").symlink_to(digit_folder)
    (tmp_path / "disk").mkdir()
    np.savez(tmp_path / "predictions.npz", labels=[0, 1, 1], net=np.full((3, 2), 0.5), costs=[1.0])
    last = sorted((tmp_path / "run" / "ensembles").iterdir())[-1].stem
    commands = [[last if word == "@last" else word for word in words] for words in [["show", "disk/run"], *WRITING]]
    root = Path(__file__).resolve().parents[2]
    script = MOUNTED.format(python=sys.executable, code=CODE, root=root)
    done = subprocess.run(
        [*SPACE, script], cwd=tmp_path, input=json.dumps(commands), capture_output=True, text=True, timeout=120
    )
    if done.returncode == 77:
        pytest.skip("needs the permission to mount in a private namespace")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert lines.pop(0) == "end of show 0"
    assert [line.split()[-1] for line in lines[1::2]] == ["2"] * len(WRITING), done.stderr
    for line in lines[::2]:
        assert line.startswith("error: cannot write"), line
        assert "disk/" in line
        assert "Read-only file system; mount it for writing or choose another folder" in line


@pytest.mark.parametrize(
    "number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOLCK, errno.ENOSYS, errno.EDQUOT, errno.EIO]
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_an_unexpected_system_error_is_one_line(
    number: int, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_run: object) -> None:
        raise OSError(number, os.strerror(number), "/mnt/far/run")

    monkeypatch.setattr("ripieno.pipeline.show", refuse)
    monkeypatch.setattr(sys, "argv", ["ripieno", "show", "run", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    console.set_output_mode(json=False, quiet=False)
    assert ended.value.code == 2
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: cannot use /mnt/far/run: {os.strerror(number)}; ")
    if options == ["--json"]:
        assert json.loads(captured.out)["code"] == 2


def test_a_name_that_is_too_long_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ripieno", "show", "x" * 300])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("File name too long; choose a shorter name\n")
